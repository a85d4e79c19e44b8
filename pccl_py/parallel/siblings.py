"""The ranks of one island among themselves: what they agree on, and how long they wait for each other.

They talk over a group of their own, a few bytes at a time, beside whatever backend shards the model. It is
of gloo, unless the island is of this library's backend, which also works where torchrun starts ranks anew:
gloo and NCCL may find the addresses of the dead in the store then.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..errors import IslandLost, PcclError, UsageError

logger = logging.getLogger("pccl_py.parallel")

WATCH_S = 0.2


class Siblings:
    """`group`: the torch process group whose ranks are the island; None: all of torch.distributed's ranks, or
    this process alone where that is not in use. All ranks construct it together.

    limit_s   how long one waits for the others, here and in the collectives of `group`
    """

    def __init__(self, group: dist.ProcessGroup | None, limit_s: float) -> None:
        self.limit_s = limit_s
        self._group: dist.ProcessGroup | None = None
        if not dist.is_available() or not dist.is_initialized():
            if group is not None:
                raise UsageError("process_group without torch.distributed.init_process_group()")
            self.rank, self.size = 0, 1
            return
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise UsageError("this process is not in process_group: build the island on its ranks only")
        if self.size == 1:
            return
        part = group is not None and group is not dist.group.WORLD
        self._group = dist.new_group(
            dist.get_process_group_ranks(group) if part else None,
            timeout=timedelta(seconds=limit_s),
            backend="pccl" if dist.get_backend(group) == "pccl" else "gloo",
            use_local_synchronization=part,
        )

    def tell(self, number: int) -> list[int]:
        """The numbers of all ranks, by rank. Raises IslandLost where one is gone, or later than `limit_s`."""
        if self._group is None:
            return [number]
        numbers = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        try:
            dist.all_gather(numbers, torch.tensor([number]), group=self._group)
        except RuntimeError as error:
            raise self._gone(error) from error
        return [int(each) for each in numbers]

    def tell_all(self, values: list[float]) -> list[list[float]]:
        """As tell(), of as many values on all ranks."""
        if self._group is None:
            return [values]
        found = [torch.zeros(len(values), dtype=torch.float64) for _ in range(self.size)]
        try:
            dist.all_gather(found, torch.tensor(values, dtype=torch.float64), group=self._group)
        except RuntimeError as error:
            raise self._gone(error) from error
        return [each.tolist() for each in found]

    def broadcast(self, part: torch.Tensor, parameter: torch.Tensor) -> None:
        """In place, from the first to all ranks that hold the same part of a parameter."""
        for device, group in self._holders(parameter):
            moved = part.to(device)
            try:
                dist.broadcast(moved, src=dist.get_global_rank(group, 0), group=group)
            except RuntimeError as error:
                raise self._gone(error) from error
            if moved is not part:
                part.copy_(moved)

    def _holders(self, parameter: Any) -> list[tuple[str, dist.ProcessGroup]]:
        """Groups of ranks that hold the same of it, by turns: those of a DTensor's replicas."""
        if self._group is None:
            return []
        if not hasattr(parameter, "placements"):
            return [("cpu", self._group)]
        mesh = parameter.device_mesh
        kept = [n for n, placement in enumerate(parameter.placements) if placement.is_replicate()]
        return [(mesh.device_type, mesh.get_group(n)) for n in kept]

    def _gone(self, error: RuntimeError) -> IslandLost:
        return IslandLost(
            f"rank {self.rank} of the island cannot reach all others, or one did not come within "
            f"{self.limit_s:g} s: {str(error).splitlines()[0]}"
        )

    def close(self) -> None:
        """Of this rank; the others notice when they talk next."""
        if self._group is not None and dist.is_initialized():
            dist.destroy_process_group(self._group)
        self._group = None


class Watch:
    """Asks `alive()` from a thread until it raises, and then once `gone(error)` there. Ends with stop().

    The training thread may sit in a collective of the island meanwhile.
    """

    def __init__(self, alive: Callable[[], object], gone: Callable[[PcclError], None]) -> None:
        self._alive, self._gone = alive, gone
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pccl-island-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(WATCH_S):
            try:
                self._alive()
            except PcclError as error:
                if not self._stop.is_set():
                    self._gone(error)
                return

    def stop(self) -> None:
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5)


def limit_waits(groups: list[dist.ProcessGroup], limit_s: float) -> None:
    """No collective of these groups that begins from now on waits longer."""
    limit = timedelta(seconds=limit_s)
    set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout  # from 2.15 on
    for group in groups:
        try:
            if dist.get_backend(group) == "pccl":  # torch sets the timeouts of its own backends only
                group.set_timeout(limit)
            else:
                set_timeout(limit, group)
        except Exception as error:
            logger.warning("%s keeps its own timeout: %s", group.group_name, error)


def abort(groups: list[dist.ProcessGroup]) -> None:
    """Ends their collectives in flight, where the backend can: NCCL does, gloo waits for its timeout."""
    for group in groups:
        try:
            dist.distributed_c10d._abort_process_group(group)
        except Exception as error:
            logger.warning("%s cannot be aborted: %s", group.group_name, error)
