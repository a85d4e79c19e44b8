"""Which revisions of the shared state members may be told."""

from __future__ import annotations

from .records import Record


class Revisions:
    """A member's own, and nothing else: all of them have made the same steps. But where all that had trained
    were gone, newcomers begin at 0; and then one that was evicted comes back, with what it has kept."""

    def __init__(self) -> None:
        self._kept: set[int] = set()

    def kept(self, revision: int) -> None:
        """By a peer that the run went on without."""
        self._kept.add(revision)

    def synced(self, peer: int, record: Record) -> list[str]:
        """What is wrong with a synchronization: `before` is the member's revision, null for who is new."""
        before, revision = record.get("before"), record.get("revision")
        if before is None or revision == before or (revision > before and revision in self._kept):
            return []
        who = f"peer {peer}, a member of revision {before}"
        return [f"{who}, was told revision {revision} in {record['key']}"]
