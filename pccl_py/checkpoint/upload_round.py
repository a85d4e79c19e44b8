"""Who sends which shard of a step."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ..errors import CheckpointError
from . import manifest as manifests
from .manifest import Manifest
from .manifest_body import shard_file


class Round(NamedTuple):
    """Of one rank: the shards that it sends, and what tells this step from another of its number."""

    shards: list[int]
    seal: str

    @classmethod
    def of(cls, step: int, made: Manifest, has: list[list[int]], rank: int) -> Round:
        """A shard is sent by the rank whose own it is, or else by the lowest rank that has it.

        has: per rank, the shards in its folder. Raises CheckpointError where nobody has one.
        """
        own = {shard_file(number, made.world): number for number in range(len(has))}
        mine = []
        for index, shard in enumerate(made.shards):
            holders = [number for number, held in enumerate(has) if index in held]
            if not holders:
                raise CheckpointError(f"step {step} is not uploaded: no rank has {shard.file} any more")
            sender = own.get(shard.file)
            if rank == (sender if sender in holders else holders[0]):
                mine.append(index)
        return cls(mine, hashlib.sha256(manifests.encode(made)).hexdigest())
