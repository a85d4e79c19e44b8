"""The table of a snapshot: what its buffer holds, as the shard of one rank of a checkpoint is described.

    {"world":2,"trainers":["0","1"],"block_bytes":1048576}\\n
                                              ranks that train together, their names (or none: not known), and
                                              the bytes of a checksum block
    a rank's record                           see checkpoint/rank_record.py

The buffer is a shard file of checkpoints, byte for byte, so that one reader does for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..checkpoint import manifest_body, rank_record
from ..checkpoint.manifest import Manifest
from ..checkpoint.rank_record import RankRecord
from ..errors import DamagedError
from ..values import bounded_json, limits
from . import bounded

_SHARD = re.compile(
    rb'\{"rank":\d+,"shard":\{"file":"[^"]*","bytes":\d+,"data_offset":\d+,"crc32":"([0-9a-f]*)"'
)
_HEAD_BYTES_MAX = 8 << 20  # with the names of all ranks


@dataclass(frozen=True, slots=True)
class Table:
    world: int
    block_bytes: int
    record: RankRecord
    trainers: tuple[str, ...] = ()

    @property
    def crcs(self) -> bytes:
        """Of the blocks, little-endian."""
        return b"" if self.record.shard is None else self.record.shard.crcs

    def manifest(self, step: int, time: float, file: str) -> Manifest:
        """As if the shard were a file of that name. Pieces need not cover their tensors: other ranks have the
        rest."""
        shards = () if self.record.shard is None else (replace(self.record.shard, file=file),)
        private: Mapping[int, Mapping[str, bounded_json.Json]] = {self.record.rank: self.record.private}
        return Manifest(
            step,
            time,
            self.world,
            self.block_bytes,
            shards,
            self.record.tensors,
            self.record.objects,
            private if self.record.private else {},
        )


def encode(table: Table) -> bytes:
    words = {"world": table.world, "trainers": list(table.trainers), "block_bytes": table.block_bytes}
    head = bounded_json.dumps(words)
    return head + b"\n" + rank_record.encode_record(table.record)


def checksums(data: bytes, block_bytes: int) -> bytes | None:
    """Of the blocks, as Table.crcs, by a glance at where `encode` writes them: to read a whole table takes
    long where there are many tensors. None: they are of other blocks, or not there. Whoever uses them looks
    at the bytes themselves."""
    head = data.find(b"\n") + 1
    found = _SHARD.match(data, head)
    if not data[:head].endswith(b',"block_bytes":%d}\n' % block_bytes) or found is None or len(found[1]) % 8:
        return None
    return np.frombuffer(bytes.fromhex(found[1].decode()), ">u4").astype("<u4").tobytes()


def decode(data: bytes, what: str) -> Table:
    """From anybody's bytes. Raises DamagedError that begins with `what`."""
    head, newline, body = data.partition(b"\n")
    if not newline:
        raise DamagedError(f"{what}: it is cut off")
    reader = manifest_body.Reader(what)
    value = bounded_json.loads(head, what=what, bytes_max=_HEAD_BYTES_MAX, depth_max=3)
    found = reader.fields(value, ("world", "trainers", "block_bytes"), "its head")
    world = reader.number(found["world"], "world", 1, limits.SHARDS_MAX)
    most = limits.BLOCK_BYTES_MAX
    block_bytes = reader.number(found["block_bytes"], "block_bytes", limits.BLOCK_BYTES_MIN, most)
    record = rank_record.decode_record(body, block_bytes, what=what)
    if record.rank >= world:
        reader.refuse(f"rank {record.rank} of {world}")
    names = found["trainers"]
    if not isinstance(names, list) or len(names) not in (0, world) or not all(map(bounded.is_name, names)):
        reader.refuse("the names of its ranks")
    return Table(world, block_bytes, record, tuple(names))
