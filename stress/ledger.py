"""What peers say about one operation, held against each other.

Every operation has one fate: committed with the same contributors and the same bits wherever it is
committed, in all groups for scope "run", and on every contributor that lives to tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """As in the peers' records, and whose group: -1 for all."""

    window: int
    slot: int
    scope: str
    retry: int
    group: int


@dataclass
class _Entry:
    opened: float
    contributors: tuple[int, ...] = ()
    digest: int = 0
    committed_by: dict[int, float] = field(default_factory=dict)  # and since when each was a member
    last: float = 0.0
    failed_by: dict[int, float] = field(default_factory=dict)


# Peer -> its island, or None while that is not known.
IslandOf = Callable[[int], str | None]


class Ledger:
    """`commit` and `fail` return what is wrong, as does `close` for operations that are old enough.

    since   when the peer of that number became a member. A run that all have left is over, and the next one
            counts its peers anew: the same numbers are others then
    """

    def __init__(self, since: Callable[[int], float] = lambda peer: 0.0) -> None:
        self._entries: dict[Key, _Entry] = {}
        self._since = since

    def commit(
        self,
        key: Key,
        peer: int,
        contributors: tuple[int, ...],
        digest: int,
        now: float,
        is_gone: Callable[[int], bool],
    ) -> list[str]:
        """`is_gone`: a peer that is in the run no more."""
        entry = self._entry(key, peer, now, is_gone, contributors)
        faults = []
        if peer in entry.committed_by:
            faults.append(f"{key}: committed twice by peer {peer}")
        if entry.committed_by and contributors != entry.contributors:
            faults.append(
                f"{key}: peer {peer} says contributors {contributors}, "
                f"peers {sorted(entry.committed_by)} say {entry.contributors}"
            )
        elif entry.committed_by and digest != entry.digest:
            faults.append(f"{key}: peer {peer} has other bits than peers {sorted(entry.committed_by)}")
        if entry.failed_by:
            faults.append(f"{key}: committed by peer {peer}, but failed at peers {sorted(entry.failed_by)}")
        entry.committed_by[peer], entry.last = self._since(peer), max(entry.last, now)
        entry.contributors, entry.digest = contributors, digest
        return faults

    def fail(self, key: Key, peer: int, now: float, is_gone: Callable[[int], bool]) -> list[str]:
        """Only of failures that every peer must see: not of evictions."""
        entry = self._entry(key, peer, now, is_gone)
        entry.failed_by[peer], entry.last = self._since(peer), max(entry.last, now)
        if entry.committed_by:
            return [f"{key}: failed at peer {peer}, but committed by peers {sorted(entry.committed_by)}"]
        return []

    def _entry(
        self,
        key: Key,
        peer: int,
        now: float,
        is_gone: Callable[[int], bool],
        contributors: tuple[int, ...] | None = None,
    ) -> _Entry:
        """A new one where all that had a part in the old one are gone, and the run has begun again."""
        entry = self._entries.setdefault(key, _Entry(now))
        seen = entry.committed_by | entry.failed_by
        others = contributors is not None and seen.keys().isdisjoint(contributors)
        if not seen or not (others or self._since(peer) > entry.last):
            return entry
        if all(is_gone(p) or self._since(p) != t for p, t in seen.items()):
            entry = self._entries[key] = _Entry(now)
        return entry

    def close(self, before: float, islands: IslandOf, must_have: Callable[[int], bool]) -> list[str]:
        """Forgets operations first heard of before that time. `must_have`: the peer has been well all
        along.
        """
        faults = []
        old = [key for key, entry in self._entries.items() if entry.opened < before]
        for key in old:
            entry = self._entries[key]
            if not entry.committed_by:
                continue
            missing = [
                p
                for p in entry.contributors
                if p not in entry.committed_by and must_have(p) and self._since(p) <= entry.opened
            ]
            if missing:
                faults.append(f"{key}: committed by peers {sorted(entry.committed_by)}, never by {missing}")
            faults += self._faults_across_groups(key, entry, islands)
        for key in old:
            del self._entries[key]
        return faults

    def _faults_across_groups(self, key: Key, entry: _Entry, islands: IslandOf) -> list[str]:
        """A run-scope operation has the same islands in every group."""
        other_key = key._replace(group=0)
        other = self._entries.get(other_key)
        if key.scope != "run" or other is None or other is entry:
            return []
        if other.failed_by:
            return [
                f"{key}: committed in group {key.group}, failed in group 0 at peers {sorted(other.failed_by)}"
            ]
        ours = {islands(peer) for peer in entry.contributors}
        theirs = {islands(peer) for peer in other.contributors}
        if not other.committed_by or None in ours | theirs or ours == theirs:
            return []
        here, there = sorted(map(str, ours)), sorted(map(str, theirs))
        return [f"{key}: islands {here} in group {key.group}, {there} in group 0"]
