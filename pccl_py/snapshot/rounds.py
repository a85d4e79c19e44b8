"""What keepers of a run say to each other in a round: each its words, to all."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..communicator import Communicator
from ..errors import ProtocolError
from ..work import OpInfo

Bytes = npt.NDArray[np.uint8]
SHORT = 4096  # what most words fit into, with their length in front
_LENGTH = struct.Struct("<I")
TIMEOUT_S = 60.0


def to_all(comm: Communicator, words: bytes, most: int, timeout: float = TIMEOUT_S) -> list[bytes]:
    """Those of all, by rank. `timeout`: more, where it takes long until all have theirs. Raises ProtocolError
    for longer ones than `most`, and what collectives raise."""
    head = _LENGTH.pack(len(words)) + words[: SHORT - _LENGTH.size]
    rows = _gathered(comm, head, SHORT, timeout)
    lengths = [_LENGTH.unpack_from(row.tobytes())[0] for row in rows]
    longest = max(lengths)
    if longest > most:
        raise ProtocolError(f"a keeper says {longest} bytes, more than {most}")
    if longest > SHORT - _LENGTH.size:
        rows = _gathered(comm, words, longest, timeout)
        return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
    first = _LENGTH.size
    return [row[first : first + length].tobytes() for row, length in zip(rows, lengths, strict=True)]


def known_from_all(comm: Communicator, words: bytes | None, sizes: Sequence[int]) -> list[bytes] | None:
    """Words of all by rank, of whose `sizes` all know. None: one of them said None, or has others."""
    ready = words is not None and len(words) == sizes[comm.rank]
    said = b"\1" + words if ready and words is not None else b"\0"
    rows = _gathered(comm, said, 1 + max(sizes), TIMEOUT_S)
    if not rows[:, 0].all():
        return None
    return [row[1 : 1 + size].tobytes() for row, size in zip(rows, sizes, strict=True)]


def _gathered(comm: Communicator, words: bytes, size: int, timeout: float) -> Bytes:
    mine = np.zeros(size, np.uint8)
    mine[: len(words)] = np.frombuffer(words, np.uint8)
    world = comm.world_size
    out = np.empty(world * size, np.uint8)
    info: Any = comm.all_gather(mine, out, timeout=timeout)
    assert isinstance(info, OpInfo)
    return out.reshape(world, size)


def all_say_yes(comm: Communicator, yes: bool) -> bool:
    out = np.empty(comm.world_size, np.uint8)
    comm.all_gather(np.array([yes], np.uint8), out, timeout=TIMEOUT_S)
    return bool(out.all())


def from_one(comm: Communicator, rank: int, words: bytes | None, size: int) -> bytes:
    """`size` bytes of the keeper with that rank."""
    data = np.zeros(size, np.uint8)
    if comm.rank == rank and words is not None and len(words) == size:
        data[:] = np.frombuffer(words, np.uint8)
    comm.broadcast(data, rank, timeout=TIMEOUT_S)
    return data.tobytes()
