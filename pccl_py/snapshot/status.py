"""What Snapshots say of themselves."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """One snapshot that the keeper has.

    blocked_s     how long take() took;    fenced_s: how long steps waited for copies of it
    complete_s    from the call until it is what a successor would find
    """

    step: int
    bytes: int
    blocked_s: float
    fenced_s: float
    complete_s: float


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """How safe the state is.

    step        of the newest complete snapshot, None: there is none;    age_s: since it was completed here
    losses      hosts (failure domains) that may be lost at once without losing the newest coded one
    coded       the newest step that others could bring back; None: there is none, or no parity
    identical   bytes of that one that every host has, bit for bit: they need no code, and survive any losses
                but that of all
    unchanged   bytes of that one that are as they were in the one coded before, `identical` ones among them:
                of these hardly any were sent again. 0: all of it was coded anew
    fault       why that is not the newest complete one; empty: it is, or will be soon
    bytes       of that snapshot;    memory_bytes: of the keeper's buffers for this trainer's
    parity_bytes    that the keeper holds beside them of other hosts' parities, as it said last
    overhead    parity_bytes for one byte of the buffers: m / (n - m) where n keepers code together
    taken, skipped, failed    since this object was made
    flushed     the newest step that was written to the disk since then; None: none
    """

    step: int | None
    age_s: float | None
    losses: int
    coded: int | None
    identical: int
    unchanged: int
    fault: str
    bytes: int
    memory_bytes: int
    parity_bytes: int
    taken: int
    skipped: int
    failed: int
    flushed: int | None
    last: SnapshotInfo | None

    @property
    def overhead(self) -> float:
        return self.parity_bytes / self.memory_bytes if self.memory_bytes else 0.0
