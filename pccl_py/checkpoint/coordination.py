"""How the ranks that save together hear of each other: some give bytes under a key, some get those of all.

Not a collective of the training's own groups: a save commits beside the training, and two users of one group
would wait for each other. Each exchange has a deadline and names who is missing.

Keys are words joined by "/". Those with the same first word are one channel: all ranks use its keys in one
order, from one thread. Channels know nothing of each other.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Sequence

from ..errors import CheckpointError
from ..state.boxed import World

# Own keys of a channel that others may still read: what follows is given only by those who have read before.
KEPT = 4
PAUSE_FIRST_S, PAUSE_MOST_S = 0.0005, 0.05


class Missing(CheckpointError):
    """Some ranks gave nothing in time. `ranks`: who."""

    def __init__(self, text: str, ranks: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.ranks = tuple(ranks)


class Coordination(ABC):
    """What users of an exchange call; a way for ranks to hear of each other has `_exchange`."""

    world: World

    def exchange(
        self,
        key: str,
        words: bytes,
        timeout_s: float,
        *,
        writers: Sequence[int] | None = None,
        readers: Sequence[int] | None = None,
    ) -> list[bytes]:
        """What each of the writers gave under the key, in their order; nothing for who is no reader. None:
        all ranks. All ranks make the same exchanges of a channel; a key is used once.

        Raises Missing, with the ranks, when time is over; CheckpointError where the others cannot be reached.
        """
        ranks = range(self.world.size)
        given = ranks if writers is None else writers
        return self._exchange(key, words, timeout_s, given, ranks if readers is None else readers)

    @abstractmethod
    def _exchange(
        self, key: str, words: bytes, timeout_s: float, writers: Sequence[int], readers: Sequence[int]
    ) -> list[bytes]: ...

    def stop(self) -> None:  # noqa: B027 (nothing waits)
        """Ends exchanges that wait, with CheckpointError. Any thread."""

    def close(self) -> None:  # noqa: B027 (nothing to do, mostly)
        """Everybody calls it, at the end; bounded, and never raises for others that do not."""


class Alone(Coordination):
    """One rank by itself."""

    world = World(0, 1)

    def _exchange(self, key: str, words: bytes, *_: object) -> list[bytes]:
        return [words]


class Board(Coordination):
    """An exchange over a place where everybody may pin words, and look whether others have.

    A rank takes its own words away when `KEPT` newer ones of the channel are there and it has just read those
    of others: who has given the newest has read all that came before.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._given: dict[str, deque[str]] = defaultdict(deque)
        self._lock = threading.Lock()  # of the dict alone: each channel has one thread
        self._stopped = threading.Event()
        self._silent: set[int] = set()  # ranks that were waited for in vain

    @abstractmethod
    def _pin(self, name: str, words: bytes) -> None: ...

    @abstractmethod
    def _there(self, name: str) -> bool: ...

    @abstractmethod
    def _read(self, name: str) -> bytes:
        """Of a name that is there."""

    @abstractmethod
    def _take_away(self, name: str) -> None: ...

    def _exchange(
        self, key: str, words: bytes, timeout_s: float, writers: Sequence[int], readers: Sequence[int]
    ) -> list[bytes]:
        rank = self.world.rank
        with self._lock:
            given = self._given[key.partition("/")[0]]
        if rank in writers:
            self._pin(f"{key}/{rank}", words)
            given.append(f"{key}/{rank}")
        if rank not in readers:
            return []
        self._await(key, writers, timeout_s)
        found = [self._read(f"{key}/{writer}") for writer in writers]
        while len(given) > KEPT:
            self._take_away(given.popleft())
        return found

    def _await(self, key: str, writers: Sequence[int], timeout_s: float) -> None:
        """By asking: a wait inside a store would keep other threads from it."""
        until = time.monotonic() + timeout_s
        pause = PAUSE_FIRST_S
        missing = list(writers)
        while missing := [writer for writer in missing if not self._there(f"{key}/{writer}")]:
            if time.monotonic() > until:
                self._silent.update(missing)
                raise Missing(_late(key, missing, self.world.size, timeout_s), missing)
            if self._stopped.wait(pause):
                raise CheckpointError(
                    f"{key}: this Checkpointer was closed while it waited for rank {missing}"
                )
            pause = min(pause * 1.5, PAUSE_MOST_S)

    def stop(self) -> None:
        self._stopped.set()


def _late(key: str, ranks: Sequence[int], world: int, timeout_s: float) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return (
        f"{key}: rank {shown} of {world} did not answer for {timeout_s:g} s: it died, hangs or does not "
        "call the "
        "same; earlier checkpoints stay, restart the missing ranks"
    )
