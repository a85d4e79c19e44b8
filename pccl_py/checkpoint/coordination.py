"""How ranks that save together hear of each other: each gives bytes under a key and gets those of all.

Not a collective of the training's own groups: a save commits beside the training, and two users of one group
would wait for each other. Each exchange has a deadline and names who is missing.
"""

from __future__ import annotations

import itertools
import time
from typing import Any, Protocol

from ..errors import CheckpointError
from ..state.boxed import World

_made = itertools.count()  # Checkpointers of this process: all ranks make theirs in one order


class Coordination(Protocol):
    world: World

    def exchange(self, key: str, words: bytes, timeout_s: float) -> list[bytes]:
        """What each rank gave under the key, in the order of ranks. One thread; a key is used once."""

    def apart(self, name: str) -> Coordination:
        """The same ranks, for another thread: its exchanges and keys are its own."""

    def close(self) -> None: ...


class Alone:
    """One rank by itself."""

    world = World(0, 1)

    def exchange(self, key: str, words: bytes, timeout_s: float) -> list[bytes]:
        return [words]

    def apart(self, name: str) -> Alone:
        return self

    def close(self) -> None:
        pass


class StoreCoordination:
    """Over a torch store, as init_process_group has made one: no collective is called.

    Each rank deletes its key of an exchange two exchanges later, when everybody has read it. So exchanges of one
    object come from one thread, in one order on all ranks; `apart` makes one for another thread.
    """

    def __init__(self, store: Any, world: World) -> None:
        self.world = world
        self._store = store.clone() if hasattr(store, "clone") else store
        self._old: list[str] = []

    def exchange(self, key: str, words: bytes, timeout_s: float) -> list[bytes]:
        self._store.set(f"{key}/{self.world.rank}", words.hex())
        keys = [f"{key}/{rank}" for rank in range(self.world.size)]
        self._await(key, keys, timeout_s)
        given = [bytes.fromhex(self._store.get(name).decode()) for name in keys]
        self._forget(keys)
        return given

    def apart(self, name: str) -> StoreCoordination:
        import torch.distributed as dist

        return StoreCoordination(dist.PrefixStore(name, self._store), self.world)

    def _await(self, key: str, keys: list[str], timeout_s: float) -> None:
        """By asking, not by waiting in the store: that would keep others of this process from it."""
        begun = time.monotonic()
        pause = 0.0005
        missing = keys
        while missing := [name for name in missing if not self._store.check([name])]:
            if time.monotonic() - begun > timeout_s:
                ranks = ", ".join(name.rpartition("/")[2] for name in missing)
                raise CheckpointError(
                    f"{key}: rank {ranks} of {self.world.size} did not answer for {timeout_s:g} s: it died "
                    "or does not save; the checkpoint before this one stays, restart the missing ranks"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def _forget(self, keys: list[str]) -> None:
        self._old.append(keys[self.world.rank])
        if len(self._old) > 2:
            self._store.delete_key(self._old.pop(0))

    def close(self) -> None:
        self._old.clear()


def of_process_group(group: Any) -> Coordination:
    """Of the ranks of a torch process group (None: the default one, where torch.distributed has one)."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return Alone()
    world = World(dist.get_rank(group), dist.get_world_size(group))
    if world.size == 1:
        return Alone()
    from torch._C._distributed_c10d import PrefixStore
    from torch.distributed.distributed_c10d import _get_default_group, _get_process_group_store

    store = _get_process_group_store(group if group is not None else _get_default_group())
    return StoreCoordination(PrefixStore(f"pccl-checkpoint/{next(_made)}", store), world)
