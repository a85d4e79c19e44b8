"""Who protects whom: code groups across failure domains, and the stripes of a group."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ..errors import UsageError
from . import native
from .memory import BLOCKS_MAX, index


def code_groups(domains: Sequence[Hashable], size: int) -> list[list[int]]:
    """Groups of at least `size` keepers (fewer where there are fewer in all), with as few as possible of one
    domain in each: a host, a rack, whatever vanishes as one.

    domains   of keeper 0, 1, ...

    Returns the numbers of each group's keepers in the order of their slots; the same for the same arguments.
    """
    numbers = {domain: number for number, domain in enumerate(dict.fromkeys(domains))}
    if index(size, BLOCKS_MAX + 1, "size") == 0:
        raise UsageError("size 0: a code group has keepers")
    return [list(group) for group in native.code_groups([numbers[domain] for domain in domains], size)]


class Stripes:
    """Where the blocks of a group of n keepers with m parities lie, 0 < m < n <= 256.

    Each keeper's snapshot is cut into k = n - m blocks. In each of n stripes a keeper holds one block: one
    of its own (block j of the data of a stripe is block j of its keeper), or a parity for others. So each
    holds m parities, m / (n - m) of its own size, and whoever m keepers are that vanish, every stripe keeps
    k blocks.
    Blocks of a stripe are numbered as in ReedSolomon: data 0 to k - 1, parities from k.
    """

    def __init__(self, n: int, m: int) -> None:
        self.n = index(n, BLOCKS_MAX + 1, "n")
        self.m = index(m, BLOCKS_MAX + 1, "m")
        if not 0 < self.m < self.n:
            raise UsageError(f"Stripes({n}, {m}): parities are at least 1 and fewer than the keepers")
        self.k = self.n - self.m
        self._core = native.Stripes(self.n, self.m)

    def slot_of(self, stripe: int, block: int) -> int:
        """Who holds a block of a stripe."""
        return int(self._core.slot_of(index(stripe, self.n, "stripe"), index(block, self.n, "block")))

    def block_of(self, stripe: int, slot: int) -> int:
        """Which block of a stripe a slot holds."""
        return int(self._core.block_of(index(stripe, self.n, "stripe"), index(slot, self.n, "slot")))

    def stripe_of(self, slot: int, block: int) -> int:
        """The stripe in which a slot holds the block with that number."""
        return int(self._core.stripe_of(index(slot, self.n, "slot"), index(block, self.n, "block")))
