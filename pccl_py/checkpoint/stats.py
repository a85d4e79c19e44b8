"""What saves have cost, as users and benchmarks read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SaveInfo:
    """One save that is durable.

    blocked_s    how long the call to save() took
    fenced_s     how long steps and other writes waited for copies of this save
    staged_s     from the call until all tensors were copied;    durable_s: until the step could be loaded
    bytes        of this rank's shard file;    direct: it went past the page cache
    """

    step: int
    blocked_s: float
    fenced_s: float
    staged_s: float
    durable_s: float
    bytes: int
    direct: bool


@dataclass(slots=True)
class Stats:
    """Of a Checkpointer since it was made. `last`: the newest durable save.

    uploaded         steps that are at the remote now;    uploaded_step: the newest
    uploaded_s       how long that one took
    uploaded_bytes   sent, resent ones too;    resumed_bytes: that an earlier process had sent
    uploading        the step under way;    upload_skipped: steps left out, because newer ones waited
    upload_retries   calls that the remote did not answer well;    remote_fault: why, as long as it lasts
    fetched_bytes    of shard files that came from the remote
    """

    saves: int = 0
    skipped: int = 0
    failed: int = 0
    blocked_s: float = 0.0
    fenced_s: float = 0.0
    bytes: int = 0
    pool_bytes: int = 0
    last: SaveInfo | None = None
    uploaded: int = 0
    uploaded_step: int | None = None
    uploaded_s: float = 0.0
    uploaded_bytes: int = 0
    resumed_bytes: int = 0
    uploading: int | None = None
    upload_skipped: int = 0
    upload_failed: int = 0
    upload_retries: int = 0
    remote_fault: str | None = None
    remote_retired: int = 0
    fetched_bytes: int = 0

    def add(self, info: SaveInfo) -> None:
        self.saves += 1
        self.blocked_s += info.blocked_s
        self.fenced_s += info.fenced_s
        self.bytes += info.bytes
        self.last = info

    def add_upload(self, step: int, sent: int, kept: int, seconds: float) -> None:
        self.uploaded += 1
        self.uploaded_step, self.uploaded_s = step, seconds
        self.uploaded_bytes += sent
        self.resumed_bytes += kept


@dataclass(frozen=True, slots=True)
class LoadInfo:
    """A load.

    missing      names that the state has and the checkpoint does not;    unexpected: the other way round
    skipped      newer steps that could not be read, each with the reason
    fetched      bytes of shard files that came from the remote first
    """

    step: int
    folder: str
    bytes: int
    seconds: float
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    skipped: tuple[tuple[int, str], ...] = ()
    fetched: int = 0
