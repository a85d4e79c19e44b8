"""The table of a snapshot: what its buffer holds, as the shard of one rank of a checkpoint is described.

    {"world":2,"block_bytes":1048576}\\n       ranks that train together; bytes of a checksum block
    a rank's record                           see checkpoint/rank_record.py

The buffer is a shard file of checkpoints, byte for byte, so that one reader does for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..checkpoint import manifest_body, rank_record
from ..checkpoint.manifest import Manifest
from ..checkpoint.rank_record import RankRecord
from ..errors import DamagedError
from ..values import bounded_json, limits

_HEAD_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Table:
    world: int
    block_bytes: int
    record: RankRecord

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
    head = bounded_json.dumps({"world": table.world, "block_bytes": table.block_bytes})
    return head + b"\n" + rank_record.encode_record(table.record)


def decode(data: bytes, what: str) -> Table:
    """From anybody's bytes. Raises DamagedError that begins with `what`."""
    head, newline, body = data.partition(b"\n")
    if not newline:
        raise DamagedError(f"{what}: it is cut off")
    reader = manifest_body.Reader(what)
    value = bounded_json.loads(head, what=what, bytes_max=_HEAD_BYTES_MAX, depth_max=2)
    found = reader.fields(value, ("world", "block_bytes"), "its head")
    world = reader.number(found["world"], "world", 1, limits.SHARDS_MAX)
    most = limits.BLOCK_BYTES_MAX
    block_bytes = reader.number(found["block_bytes"], "block_bytes", limits.BLOCK_BYTES_MIN, most)
    record = rank_record.decode_record(body, block_bytes, what=what)
    if record.rank >= world:
        reader.refuse(f"rank {record.rank} of {world}")
    return Table(world, block_bytes, record)
