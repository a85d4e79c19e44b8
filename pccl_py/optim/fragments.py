"""Which parameters travel together, and when: pure functions of sizes and of the number of a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import UsageError


def balanced(sizes: Sequence[int], names: Sequence[str], count: int) -> list[list[int]]:
    """`count` groups of indices whose sums of sizes are about equal; each group in ascending order.

    Greedy: the largest first, into the group that is the smallest so far; ties by name, then by group. The
    same on all peers, as it looks at nothing else.
    """
    if count > len(sizes):
        raise UsageError(f"num_fragments={count}: the model has {len(sizes)} parameters; pass at most that")
    groups: list[list[int]] = [[] for _ in range(count)]
    sums = [0] * count
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], names[i])):
        # An empty group first, so that none stays so where sizes are 0.
        smallest = min(range(count), key=lambda g: (bool(groups[g]), sums[g], g))
        groups[smallest].append(index)
        sums[smallest] += sizes[index]
    return [sorted(group) for group in groups]


@dataclass(frozen=True)
class Schedule:
    """Round k, counted from 0, is of fragment k modulo F. Fragment p travels at inner steps that are
    (p + 1) H / F modulo H, and is applied `delay` inner steps later: so one is under way at any time."""

    sync_every: int
    num_fragments: int = 1
    delay: int = 0

    def __post_init__(self) -> None:
        h, f, tau = self.sync_every, self.num_fragments, self.delay
        if h < f:
            raise UsageError(f"sync_every={h} is less than num_fragments={f}: each needs a step of its own")
        if tau and tau >= h // f:
            raise UsageError(
                f"fragment_sync_delay={tau}: fragments travel every {h // f} inner steps, and one has to be "
                f"applied before the next leaves; pass at most {h // f - 1}"
            )

    def fragment(self, number: int) -> int:
        return number % self.num_fragments

    def interval(self, number: int) -> int:
        """Inner steps between the departures of round `number` and of the one before."""
        p, h, f = self.fragment(number), self.sync_every, self.num_fragments
        return (p + 1) * h // f - p * h // f
