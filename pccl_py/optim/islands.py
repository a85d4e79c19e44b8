"""What changes for a model whose shards are on the ranks of an island: they must decide alike."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import NotBuilt
from .options import Settings
from .reduction import Comm, How


class Ranks:
    """Of this peer's island; one where it is none. What one rank finds out of its shard alone has to be
    told, or shards drift apart; what would have to be summed over ranks is refused."""

    def __init__(self, comm: Comm, settings: Settings) -> None:
        island: Any = comm
        self._island = island if hasattr(island, "local_shards") else None
        self.size = 1 if self._island is None else int(island.size)
        if self.size > 1:
            _check(settings)

    def how(self, how: How) -> How:
        """An Island's operations end in the call; what would overlap is reduced where it is applied."""
        return how if self._island is None else replace(how, overlaps=False)

    def all(self, found: bool) -> bool:
        """Whether it is so on all ranks."""
        if self._island is None or self.size == 1:
            return found
        return all(self._island.tell(int(found)))


def _check(settings: Settings) -> None:
    rules, pace = settings.rules, settings.pace
    waiting = {
        "merge='rda'": rules.merge == "rda",
        "staleness='gap'": rules.gap,
        "outer_momentum_clip": rules.clip is not None,
        "local_steps='dynamic'": pace.dynamic,
        "min_peers": pace.quorum is not None,
    }
    for name, used in waiting.items():
        if used:
            raise NotBuilt(f"{name} on an island of several ranks waits for norms and clocks that they share")
