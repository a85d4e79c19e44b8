"""The ranks of a torch process group hear of each other over its store: no collective is called."""

from __future__ import annotations

import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import CheckpointError
from ..logs import logger
from ..state.boxed import World
from .coordination import Alone, Board, Coordination

T = TypeVar("T")
# A TCP store takes no value beyond 8 MiB.
PART_BYTES = 4 << 20
GOODBYE_S = 20.0

# Checkpointers of this process by the group's name: the ranks of a group make theirs in one order.
_made: dict[str, int] = defaultdict(int)
_made_lock = threading.Lock()


class StoreCoordination(Board):
    """`store`: a torch store that all ranks reach; this object talks to it over a connection of its own."""

    def __init__(self, store: Any, world: World) -> None:
        super().__init__(world)
        self._store = _own(store)
        self._turn = threading.Lock()  # one request at a time on the connection

    def _pin(self, name: str, words: bytes) -> None:
        data = zlib.compress(words, 1)
        parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]
        for number, part in enumerate(parts[1:], 1):
            self._ask(lambda: self._store.set(f"{name}+{number}", part))  # noqa: B023 (called at once)
        self._ask(lambda: self._store.set(name, b"%d " % len(parts) + parts[0]))

    def _there(self, name: str) -> bool:
        return bool(self._ask(lambda: self._store.check([name])))

    def _read(self, name: str) -> bytes:
        count, _, first = self._ask(lambda: self._store.get(name)).partition(b" ")
        more = [self._ask(lambda n=n: self._store.get(f"{name}+{n}")) for n in range(1, int(count))]
        try:
            return zlib.decompress(b"".join([first, *more]))
        except zlib.error as error:
            raise CheckpointError(f"{name} came damaged over torch's store: {error}") from None

    def _take_away(self, name: str) -> None:
        count = int(self._ask(lambda: self._store.get(name)).partition(b" ")[0])
        for part in (name, *(f"{name}+{n}" for n in range(1, count))):
            self._ask(lambda: self._store.delete_key(part))  # noqa: B023

    def _ask(self, request: Callable[[], T]) -> T:
        try:
            with self._turn:
                return request()
        except RuntimeError as error:  # as torch raises where the other end is gone
            words = str(error).splitlines()[0][:200]
            raise CheckpointError(
                f"torch's store does not answer ({words}): the rank that has it, most often rank 0, is gone; "
                "earlier checkpoints stay, restart all ranks"
            ) from error

    def close(self) -> None:
        """The store lives in rank 0, mostly: that one stays until the others have read what they need."""
        try:
            self._pin(f"close/{self.world.rank}", b"")
            if self.world.rank == 0:
                self._linger()
        except CheckpointError as error:
            logger.debug("%s", error)

    def _linger(self) -> None:
        until = time.monotonic() + GOODBYE_S
        missing = [rank for rank in range(self.world.size) if rank not in self._silent]
        while missing := [rank for rank in missing if not self._there(f"close/{rank}")]:
            if time.monotonic() > until:
                logger.warning("rank %s did not close its Checkpointer within %g s", missing, GOODBYE_S)
                return
            time.sleep(0.005)


def _own(store: Any) -> Any:
    """A connection that no other thread waits on."""
    try:
        return store.clone()
    except (AttributeError, RuntimeError, NotImplementedError):
        return store


def of_process_group(group: Any) -> Coordination:
    """Of the ranks of a torch process group (None: the default one, where torch.distributed has one)."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return Alone()
    world = World(dist.get_rank(group), dist.get_world_size(group))
    if world.size == 1:
        return Alone()
    if world.rank < 0:
        raise CheckpointError("this process is not in process_group: make the Checkpointer on its ranks only")
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.distributed_c10d import _get_default_group, _get_process_group_store

    group = group if group is not None else _get_default_group()
    store = _get_process_group_store(group)
    with _made_lock:
        number = _made[group.group_name]
        _made[group.group_name] += 1
    return StoreCoordination(PrefixStore(f"pccl-checkpoint/{number}", store), world)
