"""Which optimizer alone writes a tensor: such a tensor may be copied until that optimizer's next step.

By addresses, not by objects: a state_dict() hands out other objects with the same memory. What anybody else
may write has no owner: frozen parameters too (averages of weights, momentum encoders are written by hand,
unless the user says that nobody does), what two optimizers step, and views that reach beyond what the
optimizer has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

NOBODY = -1  # owns what is said to be frozen: no optimizer has this id, so none waits for it


class Written(NamedTuple):
    """Bytes [begin, end) of memory that an optimizer's step() writes. `owner`: its id, or NOBODY."""

    begin: int
    end: int
    owner: int


def extent(tensor: Tensor) -> tuple[int, int]:
    """First and last byte + 1 of what a tensor has, gaps between its rows too."""
    begin = tensor.data_ptr()
    if begin == 0 or tensor.numel() == 0:
        return 0, 0
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return begin, begin + span * tensor.element_size()


def owners_of(extents: Mapping[str, tuple[int, int]], written: Iterable[Written]) -> dict[str, int]:
    """{name: id of its owner} of those that lie in what one optimizer writes from the same first byte on."""
    owned = {begin: (end, owner) for begin, end, owner in _of_one(written)}
    found = {}
    for name, (begin, end) in extents.items():
        owner_end, owner = owned.get(begin, (0, 0))
        if begin < end <= owner_end:
            found[name] = owner
    return found


def _of_one(written: Iterable[Written]) -> list[Written]:
    """Without those that touch what another owner writes; in order, the longest of one begin last."""
    ordered = sorted(one for one in written if one.begin < one.end)
    several: set[int] = set()  # places in the order
    widest = 0  # the place of the one that reaches farthest so far
    for place in range(1, len(ordered)):
        one, before = ordered[place], ordered[widest]
        if one.begin < before.end and one.owner != before.owner:
            several |= {place, widest}
        if one.end > before.end:
            widest = place
    return [one for place, one in enumerate(ordered) if place not in several]
