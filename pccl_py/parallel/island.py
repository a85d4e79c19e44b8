"""One FSDP job as an island of a run: sharded inside by any backend, and with other islands rank by rank."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, overload

import torch
import torch.distributed as dist
from torch import Tensor
from xxhash import xxh3_64_intdigest

from ..arguments import Op
from ..communicator import Communicator
from ..errors import Evicted, IslandLost, MismatchError, UsageError
from ..shared_state import SharedState, SyncInfo
from ..staging import fence
from ..work import OpInfo
from .copies import Copies
from .island_bond import DONE, OUT_OF_RUN, REJOINS_MAX, Bond, join_together
from .island_layout import forget_pass, local, local_shards
from .island_state import IslandState, gradients, groups_of, readable
from .island_work import IslandWork
from .siblings import Siblings, limit_waits

logger = logging.getLogger("pccl_py.parallel")

MISFITS_MAX = 10  # synchronizations that newcomers may spoil for members, in a row


class Island:
    """The ranks of an FSDP job (or of any torch.distributed job, or one process) as an island of a run: rank
    r reduces with the ranks r of the other islands, and what one of its operations gives is there on all
    ranks of all islands, or on none.

        with Island("master:48148", model, optimizer, name="site-a") as island:
            while island.steps < 1000:
                with island.step():                        # newcomers come in here, and are healed
                    loss(model, next(batches)).backward()  # FSDP's own collectives
                    island.all_reduce_gradients()          # across islands, on this rank's shards
                    optimizer.step()
                    optimizer.zero_grad()

    comm            address of the master, or a Communicator made with this island's name, size and rank
    model           sharded by FSDP1 or FSDP2, or not at all, the same way on all islands
    optimizer       its state is shared with joining islands; None: DiLoCo or the caller sees to that
    name            of the island, unless `comm` has it; the island that replaces it may have the same
    process_group   the ranks of the island; None: all of torch.distributed's
    extra           {name: tensor} of the caller's that joining islands receive too
    inner_timeout   seconds that a rank waits for its siblings: in a collective of the model that begins from
                    now on, and at the end of each operation across islands
    join_timeout    seconds to be admitted, the first time and after an eviction; None: `connect_timeout_s`
    options         of the Communicator: min_islands, secret_file ...

    All ranks of an island make the same calls. Where a rank dies, its island leaves the run at once and the
    others train on; its siblings get IslandLost: as soon as the backend's connections break, at the latest
    after `inner_timeout`. They end, and the island is started anew. An island that was evicted and lives
    drops the step, joins again at its next boundary and is healed. An island whose layout differs (names,
    shapes, dtypes, placements, mesh, optimizer) gets MismatchError on all ranks, which says where.
    """

    def __init__(
        self,
        comm: Communicator | str,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        name: str | None = None,
        process_group: dist.ProcessGroup | None = None,
        extra: Mapping[str, Tensor] | None = None,
        inner_timeout: float = 120.0,
        join_timeout: float | None = None,
        **options: Any,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self._join_s = join_timeout
        self._siblings = Siblings(process_group, inner_timeout)
        self._state = IslandState(model, optimizer, extra or {})
        groups = groups_of(model)
        limit_waits(groups, inner_timeout)
        self._check_siblings()
        self._owns_comm = isinstance(comm, str)
        self.comm = self._joined(comm, name, options)
        self._bond = Bond(self.comm, self._siblings, groups)
        self._healed = False  # has taken the shared state since it came in
        self._was_member = False
        self._torn = False
        self._waiting: int | None = None  # as the last operation since the boundary said
        self._copies: Copies | None = None  # looked for by the first average

    # ---- who is there --------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """In the island."""
        return self._siblings.rank

    @property
    def size(self) -> int:
        """Ranks of the island."""
        return self._siblings.size

    @property
    def name(self) -> str:
        """The same on all ranks of the island."""
        return self._bond.name

    @property
    def islands(self) -> int:
        """In the run. Changes by itself when one is gone."""
        return self.comm.islands

    @property
    def steps(self) -> int:
        """That the run has committed through step(); healed, so the same on all islands. Set it where a
        checkpoint was loaded, before the first boundary."""
        return self._state.steps

    @steps.setter
    def steps(self, value: int) -> None:
        if self._was_member:
            raise UsageError("the run counts its steps: set them before the first boundary only")
        self._state.steps = value

    @property
    def admissions(self) -> int:
        """How often islands came in since the run began; the same on all islands after each boundary."""
        return self._state.admissions

    def local_shards(self) -> dict[str, Tensor]:
        """This rank's shard of each parameter: memory of the model, no copy. Between two steps."""
        return local_shards(self.model)

    def digest(self) -> str:
        """32 hexadecimal digits over this rank's shards of model and optimizer; equal on rank r of all
        islands after each step."""
        return self._state.digest()

    # ---- a step --------------------------------------------------------------------------------------------

    def step(self) -> _Step:
        """`with island.step():` a boundary, then a step, which counts when the block has ended.

        Where the island is evicted in it, the block is left, gradients are dropped and nothing is counted:
        the next boundary joins again. Errors of the model's collectives become IslandLost where a rank is
        gone.
        """
        return _Step(self)

    def boundary(self) -> bool:
        """Lets newcomers in, joins again where the island is out of the run, and heals who needs it: model,
        optimizer, counters and extra are those of the others then. All islands call it alike.

        Returns whether the state was synchronized, the same on all that were members. Without news it costs
        nothing where an operation of this island has told whether somebody waits, else a barrier.
        """
        for _ in range(REJOINS_MAX):
            try:
                return self._pass_boundary()
            except OUT_OF_RUN as error:
                logger.warning("%s; joining again", error)
        raise Evicted(f"the island was put out of the run {REJOINS_MAX} times in one boundary")

    def _pass_boundary(self) -> bool:
        if self._bond.is_out:
            self.rejoin()
        if self._healed:
            if self._waiting is None:
                self._waiting = self._bond.jointly(lambda: self.comm.barrier(scope="run")).waiting
            if not self._waiting:
                self._waiting = None
                return False
            self.update_topology()
            self._state.admissions += 1
            self._healed = False
        self._heal()
        return True

    def _heal(self) -> None:
        state = self._state.shared()
        # A member's is newer than that of an island which comes back with the same number of steps.
        newest = 2 * (self.steps + 1) - (not self._was_member)
        state.revision = newest if self._was_member or self.steps else 0
        state.torn = self._torn
        try:
            self._synchronize(state)
        finally:
            self._torn = state.torn
        self._state.take()
        self._healed, self._was_member, self._waiting = True, True, None

    def _synchronize(self, state: SharedState) -> SyncInfo:
        """A newcomer that does not fit goes; members repeat what it has spoilt."""
        for attempt in range(MISFITS_MAX):
            try:
                return self._bond.jointly(lambda: self.comm.sync_shared_state(state, scope="run"))
            except MismatchError as error:
                text = readable(str(error))
                if "receive_only" in text:  # as is only a state that is torn
                    raise IslandLost(
                        "no island of the run has a whole state: this one was healed in part when those who "
                        "healed it were gone. End this process and start the island anew, from a checkpoint"
                    ) from error
                if not self._was_member or self._bond.is_out or attempt + 1 == MISFITS_MAX:
                    raise MismatchError(text) from error
                logger.warning("%s; synchronizing again", text)
                time.sleep(0.1 * attempt)
        raise AssertionError("unreachable")

    # ---- across islands ------------------------------------------------------------------------------------

    @overload
    def all_reduce(
        self,
        tensors: Tensor | Sequence[Tensor],
        op: Op = ...,
        *,
        weight: float | None = ...,
        async_op: Literal[False] = ...,
        **options: Any,
    ) -> OpInfo: ...
    @overload
    def all_reduce(
        self,
        tensors: Tensor | Sequence[Tensor],
        op: Op = ...,
        *,
        weight: float | None = ...,
        async_op: Literal[True],
        **options: Any,
    ) -> IslandWork: ...
    def all_reduce(
        self,
        tensors: Tensor | Sequence[Tensor],
        op: Op = "avg",
        *,
        weight: float | None = None,
        async_op: bool = False,
        **options: Any,
    ) -> OpInfo | IslandWork:
        """Over rank r of all islands, in place or to `out`; commits on all ranks of all islands or on none.

        Options are Communicator.all_reduce's. Raises what that does, on all ranks of the island alike:
        Evicted also where only a sibling could not learn the outcome. async_op: returns at once; the ranks
        agree on its end in the wait() of what it returns, which all of them call.
        """
        options |= {"scope": "run", "weight": weight}
        if async_op:
            return IslandWork(self._bond, lambda: self.comm.all_reduce(tensors, op, async_op=True, **options))
        info: OpInfo = self._bond.jointly(lambda: self.comm.all_reduce(tensors, op, **options))
        self._waiting = info.waiting
        return info

    def all_reduce_gradients(self, weight: float | None = None, **options: Any) -> OpInfo:
        """Their (weighted) mean over the islands, on the local shards, as one operation."""
        wanted = [p for p in self.model.parameters() if p.requires_grad]
        return self._average(gradients(self.model), wanted, weight, options)

    def average_parameters(self, weight: float | None = None, **options: Any) -> OpInfo:
        """The (weighted) mean of the islands' parameters, on the local shards, as one operation."""
        fence.before_write()
        parts = [s for s in self.local_shards().values() if s.numel()]
        return self._average(parts, list(self.model.parameters()), weight, options)

    def _average(
        self,
        shards: list[Tensor],
        parameters: list[torch.nn.Parameter],
        weight: float | None,
        options: dict[str, Any],
    ) -> OpInfo:
        """shards: of those of the parameters that have elements here."""
        here = [p for p in parameters if local(p).numel()]
        if self._copies is None and self.size > 1:
            everything = list(self.model.parameters())
            self._copies = Copies.found(self, everything, [local(p.detach()) for p in everything])
        dense = [shard.contiguous() for shard in shards]
        info: OpInfo = self.all_reduce(dense, "avg", weight=weight, **options)
        if self._copies is not None:
            self._copies.unify(dense, here)
        for shard, value in zip(shards, dense, strict=True):
            if value is not shard:
                shard.copy_(value)
        return info

    # What an optimizer such as DiLoCo calls of a Communicator, in place of which it takes an Island.

    def told(self, values: Sequence[float]) -> list[list[float]]:
        """Those of all ranks of this island, by rank; as many on each. Raises IslandLost."""
        return self._bond.tell_all(list(values))

    def take_first_copy(self, part: Tensor, parameter: Tensor) -> None:
        """`part`, of a parameter that several ranks of this island hold, becomes that of the first of them:
        on all replicas of a mesh, or on all ranks for a plain parameter. Raises IslandLost."""
        self._bond.broadcast(part, parameter)

    def update_topology(self, timeout: float | None = None) -> bool:
        """Communicator.update_topology(), with one outcome for all ranks of the island."""
        changed = self._bond.jointly(lambda: self.comm.update_topology(timeout))
        self._waiting = None
        return changed

    def sync_shared_state(self, state: SharedState, **options: Any) -> SyncInfo:
        """Rank r of all islands holds the same then, if all are laid out alike. Scope is always the run."""
        merged = self._state.with_layout(state)
        options["scope"] = "run"
        try:
            return self._bond.jointly(lambda: self.comm.sync_shared_state(merged, **options))
        except MismatchError as error:
            raise MismatchError(readable(str(error))) from error
        finally:
            state.revision, state.torn = merged.revision, merged.torn

    def rejoin(self, timeout: float | None = None) -> None:
        """After Evicted and the like, on all ranks of the island: waits for the next boundary of the others.

        Raises IslandLost where a sibling does not come, and what Communicator.rejoin() does.
        """
        self._bond.rejoin(self._join_s if timeout is None else timeout)
        self._healed = self._was_member = False
        self._waiting = None

    # ---- coming and going ----------------------------------------------------------------------------------

    def _check_siblings(self) -> None:
        hashes = self._siblings.tell(xxh3_64_intdigest("\n".join(self._state.model_layout).encode()) >> 2)
        for other, value in enumerate(hashes):
            if value != hashes[0]:
                raise UsageError(
                    f"ranks 0 and {other} of this island have models that are laid out differently"
                )

    def _joined(self, comm: Communicator | str, name: str | None, options: dict[str, Any]) -> Communicator:
        if not isinstance(comm, str):
            if options or name is not None:
                raise UsageError(
                    f"{', '.join(options) or 'name'}: options of a Communicator, which exists already"
                )
            return comm
        if name is None:
            raise UsageError("an island needs a name: pass name='site-a', the same on all its ranks")
        options |= {"island": name, "island_size": self.size, "group": self.rank, "timeout": self._join_s}
        return join_together(self._siblings, lambda: Communicator(comm, **options), Communicator.leave)

    def leave(self) -> None:
        """All ranks, at the end: the other islands go on at once."""
        if self._owns_comm:
            self.comm.leave()
        self._bond.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        explained = error
        try:
            if error is not None:
                explained = self._bond.explained(error)
            elif not self._bond.is_out:
                self._bond.tell(DONE)  # the first one that leaves takes the island with it
        finally:
            self.leave()
        if explained is not error and explained is not None:
            raise explained from error

    def __repr__(self) -> str:
        return f"<Island {self.name!r}: rank {self.rank} of {self.size}, {self.steps} steps>"


class _Step:
    """What island.step() returns."""

    def __init__(self, island: Island) -> None:
        self._island = island

    def __enter__(self) -> Island:
        self._island.boundary()
        return self._island

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        island = self._island
        if error is None:
            island._state.steps += 1
            return False
        if isinstance(error, OUT_OF_RUN) and island._bond.is_out:
            logger.warning("step %d is dropped: %s", island.steps, error)
            forget_pass(island.model)
            island.model.zero_grad()
            return True
        explained = island._bond.explained(error)
        if explained is not error:
            raise explained from error
        return False
