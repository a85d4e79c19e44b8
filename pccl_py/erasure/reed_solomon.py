"""`ReedSolomon`: parities, changes of them, lost blocks, and which blocks are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..tensors import Tensor
from . import native
from .memory import (
    BLOCKS_MAX,
    addresses,
    blocks,
    disjoint,
    empty_blocks,
    index,
    memory_of,
    same_size,
    threads_of,
    whole,
)

Blocks = Tensor | Sequence[Tensor]


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. `right`: every byte is. `wrong`: the numbers of the wrong blocks, data 0 to k - 1
    and parities from k; None where more than m // 2 are wrong, so that it cannot be told which."""

    right: bool
    wrong: tuple[int, ...] | None

    def __bool__(self) -> bool:
        return self.right


class ReedSolomon:
    """A code of k blocks of data and m parities: any k of the k + m blocks give back all of them.

    Blocks are equally long, in bytes; they are given as one buffer of equal blocks or as a list of them, as
    numpy arrays or torch tensors in host memory, of any dtype and alignment (multiples of 64 are fastest).
    `threads` share the bytes of each block. Memory that is written must not overlap any other.

    m = 1 is plain exclusive or, and the first parity of every code is. The coefficients of parity row i do
    not depend on m, and those of data slot j not on k: a code of fewer parities is a part of one with more,
    and a slot that is not there yet counts as zeros. Raises UsageError for k < 1, m < 1 or k + m > 256.
    """

    def __init__(self, k: int, m: int) -> None:
        self.k = index(k, BLOCKS_MAX, "k")
        self.m = index(m, BLOCKS_MAX, "m")
        if self.k == 0 or self.m == 0 or self.k + self.m > BLOCKS_MAX:
            raise UsageError(f"ReedSolomon({k}, {m}): k and m are at least 1, and k + m at most {BLOCKS_MAX}")
        self._core = native.ReedSolomon(self.k, self.m)

    def __repr__(self) -> str:
        return f"ReedSolomon({self.k}, {self.m})"

    def encode(self, data: Blocks, parity: Blocks | None = None, *, threads: int = 1) -> Any:
        """Writes the m parities of the k blocks of data, without `parity` into new uint8[m, bytes each].

        Returns the parity.
        """
        sources = whole(blocks(data, self.k, "data", written=False), "data")
        if parity is None:
            parity = empty_blocks(self.m, same_size(sources))
        targets = whole(blocks(parity, self.m, "parity", written=True), "parity")
        size = same_size(sources, targets)
        disjoint(targets, sources)
        self._core.encode(addresses(sources), addresses(targets), size, threads_of(threads))
        return parity

    def encode_copying(
        self, data: Blocks, copies: Blocks, parity: Blocks, *, threads: int = 1
    ) -> tuple[int, ...]:
        """Copies the data, and writes the parities of what was copied, in one pass over memory.

        Returns the CRC-32C of each of the k blocks.
        """
        sources = whole(blocks(data, self.k, "data", written=False), "data")
        targets = whole(blocks(copies, self.k, "copies", written=True), "copies")
        parities = whole(blocks(parity, self.m, "parity", written=True), "parity")
        size = same_size(sources, targets, parities)
        disjoint([*targets, *parities], sources)
        memory = (addresses(sources), addresses(targets), addresses(parities))
        return tuple(self._core.encode_copying(*memory, size, threads_of(threads)))

    def update(
        self,
        parity: Tensor | Sequence[Tensor | None],
        slot: int,
        old: Tensor,
        new: Tensor,
        *,
        threads: int = 1,
    ) -> None:
        """Brings the parities up to date, in place, after block `slot` of the data changed from old to new.

        Costs what changed, not the whole stripe: pass parts of blocks, the same part of each. None in a list
        of parities: that one lies elsewhere. A slot that was not there before has zeros as `old`.
        """
        slot = index(slot, self.k, "slot")
        targets = blocks(parity, self.m, "parity", written=True)
        change = [memory_of(old, "old", written=False), memory_of(new, "new", written=False)]
        here = [block for block in targets if block is not None]
        size = same_size(change, here)
        disjoint(here, change)
        self._core.update(
            addresses(targets), slot, change[0].address, change[1].address, size, threads_of(threads)
        )

    def decode(
        self, shards: Tensor | Sequence[Tensor | None], present: Iterable[int], *, threads: int = 1
    ) -> tuple[int, ...]:
        """Rebuilds, in place, every block that is not `present` and has memory.

        shards    all k + m blocks, data first: those present are read, others written. In a list, None: a
                  block that is neither here nor wanted
        present   numbers of the blocks that are right, at least k

        Returns the numbers of the blocks that were rebuilt. UsageError if fewer than k are present.
        """
        here = self._numbers(present)
        memory = blocks(shards, self.k + self.m, "shards", written=False)
        lost = [at for at, block in enumerate(memory) if block is not None and at not in here]
        if isinstance(shards, list | tuple):
            for at in lost:
                memory_of(shards[at], f"shards[{at}]", written=True)
        elif lost:
            memory_of(shards, "shards", written=True)
        read = whole([memory[at] for at in here], "present shards")
        written = [block for at in lost if (block := memory[at]) is not None]
        size = same_size(read, written)
        disjoint(written, read)
        if not self._core.decode(addresses(memory), here, lost, size, threads_of(threads)):
            raise UsageError(self._too_few(here))
        return tuple(lost)

    def verify(self, data: Blocks, parity: Blocks, *, threads: int = 1) -> Verdict:
        """Whether the parities are those of the data, and if not, which blocks are wrong.

        Names wrong blocks where at most m // 2 of them are wrong; with m = 1 none can be named. (Where more
        are wrong it says so, unless their bytes happen to look like fewer wrong ones.)
        """
        memory = [
            *whole(blocks(data, self.k, "data", written=False), "data"),
            *whole(blocks(parity, self.m, "parity", written=False), "parity"),
        ]
        right, wrong = self._core.verify(addresses(memory), same_size(memory), threads_of(threads))
        return Verdict(right, None if wrong is None else tuple(wrong))

    def coefficient(self, row: int, slot: int) -> int:
        """What parity `row` multiplies block `slot` of the data by, in GF(2^8) modulo 0x11d."""
        return int(native.coefficient(index(row, self.m, "row"), index(slot, self.k, "slot")))

    def decode_row(self, present: Iterable[int], lost: int) -> dict[int, int]:
        """By number of a present block, what to multiply it by so that the sum is block `lost`.

        Of k blocks: data first, then the first parities. UsageError if fewer than k are present.
        """
        here = self._numbers(present)
        lost = index(lost, self.k + self.m, "lost")
        if lost in here:
            raise UsageError(f"block {lost} is present: it needs no rebuilding")
        if row := self._core.decode_row(here, lost):
            return dict(row)
        raise UsageError(self._too_few(here))

    def _numbers(self, present: Iterable[int]) -> list[int]:
        here = sorted(index(number, self.k + self.m, "present block") for number in present)
        if any(a == b for a, b in zip(here, here[1:], strict=False)):
            raise UsageError(f"present {here} names a block twice")
        return here

    def _too_few(self, here: list[int]) -> str:
        return (
            f"{len(here)} of {self.k + self.m} blocks are present; {self} needs any {self.k} of them. Take "
            "what is lost from elsewhere, such as the newest checkpoint"
        )
