"""What ranks tell each other so that a step exists: each of its shard to leaders, then these to all."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from ..values import limits
from .coordination import Coordination, Missing
from .files import sync_folder
from .manifest import Manifest
from .rank_record import RankRecord, decode_record, encode_record, merge

# Who waits for a leader's word waits longer than the leader for the last shard, and hears whose is missing.
LEADER_SHARE = 1.25


@dataclass(frozen=True, slots=True)
class Draft:
    """`words` for the other ranks; where there are none, the manifest, which needs nobody's words."""

    words: bytes
    manifest: Manifest | None = None


class CommitWords:
    """Of one rank. `leaders`: the first rank of each folder; `beside`: the ranks of this rank's folder. One
    thread. `in_doubt`: steps that may exist although this rank did not hear of it."""

    def __init__(
        self, coordination: Coordination, leaders: Sequence[int], beside: Sequence[int], timeout_s: float
    ) -> None:
        self._coordination, self._world = coordination, coordination.world
        self._leaders, self._beside, self._timeout_s = leaders, beside, timeout_s
        self._leads = self._world.rank in leaders
        self.in_doubt: set[int] = set()

    def draft(self, step: int, record: RankRecord) -> Draft:
        """Of this rank's shard, perhaps before it is durable."""
        if self._world.size > 1:
            return Draft(b"R%d " % time.time_ns() + encode_record(record))
        return Draft(b"R", self._manifest(step, [record], time.time()))

    def own(self, path: Path, draft: Draft | CheckpointError) -> bytes:
        """The first phase of this rank; an error becomes what the others are told."""
        if isinstance(draft, Draft):
            try:
                if self._world.size > 1:  # else it is part of the commit
                    sync_folder(path)
                return draft.words
            except OSError as error:
                draft = CheckpointError(str(error))
        if self._world.size == 1:
            raise draft
        return b"E" + str(draft).encode()

    def of_all(self, number: int, words: bytes) -> list[bytes]:
        """For leaders, by rank."""
        return self._coordination.exchange(
            f"save/{number}/shard", words, self._timeout_s, readers=self._leaders
        )

    def merged(self, step: int, given: Sequence[bytes]) -> Manifest:
        """Raises CheckpointError where a rank has no shard."""
        for rank, words in enumerate(given):
            if words[:1] == b"E":
                raise CheckpointError(f"rank {rank} has no shard of it: {words[1:].decode()}")
        records = []
        for rank, words in enumerate(given):
            text = words[1:].partition(b" ")[2]
            records.append(decode_record(text, limits.BLOCK_BYTES, what=f"the record of rank {rank}"))
        return self._manifest(step, records, int(given[0][1:].partition(b" ")[0]) / 1e9)

    def _manifest(self, step: int, records: list[RankRecord], begun: float) -> Manifest:
        return merge(
            records,
            step=step,
            time=begun,
            world=self._world.size,
            block_bytes=limits.BLOCK_BYTES,
            prefer=self._beside,
        )

    def outcomes(self, number: int, step: int, outcome: dict[str, str], words: bytes) -> list[dict[str, str]]:
        """The second phase: of each leader, {} or {"fault": why}."""
        wait_s = self._timeout_s if self._leads else self._timeout_s * LEADER_SHARE + 1
        try:
            said = self._coordination.exchange(
                f"save/{number}/done", json.dumps(outcome).encode(), wait_s, writers=self._leaders
            )
        except CheckpointError as error:
            if words[:1] == b"R" and "fault" not in outcome:
                self.in_doubt.add(step)
            if isinstance(error, Missing) and not self._leads:
                raise CheckpointError(
                    f"step {step}: rank {self._leaders[0]}, which commits it, did not say within "
                    f"{wait_s:g} s whether it exists ({error}): restart, and the newest whole step is taken"
                ) from error
            raise
        return [json.loads(text) for text in said]
