"""Data parallelism, step by step, over peers that come and go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from types import TracebackType
from typing import Any, Self

import torch
from torch.nn.parallel import DistributedDataParallel

from ..errors import (
    Evicted,
    MasterLost,
    MismatchError,
    NoQuorumError,
    OutcomeUnknown,
    PcclError,
    UsageError,
)
from .background_sync import BackgroundSync
from .elastic_loader import ElasticLoader
from .elastic_sampler import ElasticSampler
from .gradient_sources import Gradients, gradients_of
from .mean_metric import mean_metric
from .step_reduction import Comm, reduce_once, synchronize
from .training_state import Stateful, TrainingState

logger = logging.getLogger("pccl_py.parallel")

_LEFT_BEHIND = (Evicted, OutcomeUnknown, MasterLost, NoQuorumError)
_TAG = 0xE1A50000  # of the parts of a step; 4096 of them, and the survey behind them
_SURVEY_TAG, _NUMBERS_TAG, _TENSORS_TAG = (_TAG + 0x1000 + n for n in range(3))


class Standing(Enum):
    """What is to be done at the next boundary. An exception leaves it there, and the next call goes on."""

    INSIDE = "a member"
    DOOR = "a member, and somebody waits at the door"
    ADMITTED = "behind an admission, has to synchronize"
    OUTSIDE = "the run goes on without this peer"


class ElasticDataParallel:
    """What elastic_data_parallel() returns."""

    def __init__(
        self,
        model: torch.nn.Module,
        comm: Comm | Callable[[], Comm],
        optimizer: torch.optim.Optimizer,
        *,
        sampler: ElasticSampler | None,
        extra: Mapping[str, Stateful] | None,
        bucket_cap_mb: float,
    ) -> None:
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise UsageError(f"optimizer is a {type(optimizer).__name__}; pass the model's torch optimizer")
        if bucket_cap_mb <= 0:
            raise UsageError(f"bucket_cap_mb={bucket_cap_mb}: more than 0")
        self._sampler = sampler
        self._optimizer = optimizer
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        self._gradients: Gradients
        self._gradients, self._step = gradients_of(model, sampler, bucket_cap_mb)
        self._state = TrainingState(inner, optimizer, sampler, extra or {})
        self._hook = optimizer.register_step_pre_hook(self._before_step)
        self._standing = Standing.ADMITTED
        self._tensors: BackgroundSync | None = None
        self._joined = callable(comm)
        if callable(comm):
            self._state.rehearse()
        self.comm: Comm = comm() if callable(comm) else comm
        self._step.connect(self.comm, _TAG)
        self.boundary()

    # ---- use -----------------------------------------------------------------------------------------------

    def batches(
        self,
        data: torch.utils.data.Dataset[Any],
        *,
        steps: int | None = None,
        keyed: bool = False,
        **options: Any,
    ) -> Iterator[Any]:
        """This peer's part of each global batch, until the run has taken `steps` steps; None: endlessly.

        keyed, options: of ElasticLoader, as num_workers. Newcomers come in between two batches. A peer that
        has no sample of a batch gets one all the same, which then counts nothing.
        """
        if self._sampler is None:
            raise UsageError("batches() without a sampler: pass sampler=ElasticSampler(...)")
        loader = iter(ElasticLoader(data, self._sampler, lambda: self.comm.id, keyed=keyed, **options))
        while True:
            self.boundary()
            if steps is not None and self.steps >= steps:
                return
            yield next(loader)

    def boundary(self) -> None:
        """Between two steps, where batches() is not used: before the samples of the next one are chosen.

        Newcomers come in here, and a peer that the others went on without comes back, with their state.
        Nothing is sent where nobody waits. Raises what the communicator raises; call it again to go on.
        """
        untouched = self._standing is Standing.INSIDE and not self._step.reduced
        self._note_commit()
        while True:
            try:
                if not untouched or self._step.failure is not None:  # else a step may run beside them
                    self._await_tensors()
                self._raise_failure()
                return self._go_inside()
            except _LEFT_BEHIND as error:
                logger.warning("%s; joining again at the next boundary", error)
                self._standing = Standing.OUTSIDE

    def wait_for_state(self) -> None:
        """Returns when this peer has all of the run's state; optimizer.step() waits for it by itself."""
        self._await_tensors()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """For all backward passes of a step but the last one: gradients add up in this peer."""
        was, self._step.active = self._step.active, False
        try:
            with self._gradients.no_sync():
                yield
        finally:
            self._step.active = was

    def mean(self, value: float | torch.Tensor) -> float:
        """mean_metric() of this step's loss, or another number, weighted by the samples that gave it: call it
        behind backward(), on all peers. This peer's own value where the run has gone on without it. Ranks of
        an island that have samples of their own get the mean of those, each with the ranks that it reduces
        with."""
        own = float(value.detach() if isinstance(value, torch.Tensor) else value)
        if self._step.failure is not None:
            return own
        try:
            return mean_metric(self.comm, own, float(self._step.card.samples))
        except _LEFT_BEHIND as error:
            self._step.failure = error
            return own

    @property
    def samples(self) -> int:
        """Samples of this peer's last batch. Without a sampler, set it before backward(): its weight."""
        return self._step.card.samples if self._sampler is not None else self._step.samples

    @samples.setter
    def samples(self, value: int) -> None:
        if self._sampler is not None:
            raise UsageError("samples: the sampler says how many a batch has")
        if not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise UsageError(f"samples={value!r}: a whole number from 0 on")
        self._step.samples = value

    def close(self) -> None:
        """Takes the hooks off model and optimizer, and leaves the run that this has joined."""
        self._hook.remove()
        self._gradients.close()
        if self._joined:
            self.comm.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what there is to see ------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Steps that the run has committed; the same on every peer."""
        return self._state.steps + int(self._step.reduced)

    @property
    def contributors(self) -> tuple[int, ...]:
        """Ids of the peers whose samples are in the last step."""
        return self._step.contributors

    def digest(self) -> str:
        """32 hexadecimal digits over all that is shared; equal on all peers behind each optimizer.step()."""
        self._await_tensors()
        self._note_commit()
        self._gradients.reshard()
        return self._state.digest()

    def __repr__(self) -> str:
        return f"<ElasticDataParallel: {self.steps} steps, {self._standing.value}>"

    # ---- between two steps ---------------------------------------------------------------------------------

    def _go_inside(self) -> None:
        if self._standing is Standing.OUTSIDE:
            self.comm.rejoin()
            self._standing = Standing.ADMITTED
        if self._standing is Standing.DOOR:
            self.comm.update_topology()
            self._standing = Standing.ADMITTED
        if self._standing is Standing.ADMITTED:
            self._take_state()

    def _take_state(self) -> None:
        """A newcomer with another model gets an error and leaves; rid of it, the others go on."""
        while True:
            try:
                return self._exchange_state()
            except MismatchError as error:
                if not self._state.member:
                    raise
                logger.warning("%s; a newcomer that does not fit is refused", error)

    def _exchange_state(self) -> None:
        """What is exported is taken here, on the thread that trains, between two steps. Tensors that only the
        optimizer changes may travel during forward and backward: optimizer.step() waits for them."""
        self._gradients.reshard()
        state = self._state
        survey = reduce_once(self.comm, state.survey(), "max", _SURVEY_TAG)
        numbers, tensors = state.prepare(survey)
        running, entering = bool(survey[1]), state.revision < int(survey[0])
        try:
            synchronize(self.comm, numbers, _NUMBERS_TAG)
        finally:
            state.torn |= numbers.torn
        state.incomplete |= entering
        state.taken()
        self._step.entering = running and entering
        self._tensors = BackgroundSync(self.comm, tensors, _TENSORS_TAG)
        self._standing = Standing.INSIDE
        if entering or not running:
            contributors = self._await_tensors()
            if self._sampler is not None and not running:  # else newcomers get a share with the next commit
                self._sampler.seat(contributors)

    def _await_tensors(self) -> tuple[int, ...]:
        """The state is complete when it returns who took part; raises what prevents that."""
        if (tensors := self._tensors) is None:
            return ()
        try:
            info = tensors.join()
        except PcclError:
            self._standing, self._tensors, self._state.torn = Standing.ADMITTED, None, tensors.state.torn
            raise
        self._tensors = None
        self._state.torn = False
        self._state.complete()
        return info.contributors

    def _note_commit(self) -> None:
        """Behind a commit; a peer that the run went on without since then has not that step."""
        step = self._step
        reduced, step.reduced = step.reduced, False
        if reduced and step.failure is None:
            self._state.steps += 1
            step.entering = False
            if step.waiting and self._standing is Standing.INSIDE:
                self._standing = Standing.DOOR

    def _raise_failure(self) -> None:
        failure, self._step.failure = self._step.failure, None
        if failure is not None:
            raise failure

    def _before_step(self, *_: object) -> None:
        """Of optimizer.step(): it gets the reduced gradients, or none at all where there is no result."""
        step = self._step
        try:
            self._await_tensors()
        except _LEFT_BEHIND as error:
            step.failure = step.failure or error
        if step.failure is not None and not isinstance(step.failure, _LEFT_BEHIND):
            self._raise_failure()
        if step.failure is not None or (step.reduced and not step.has_result):
            for group in self._optimizer.param_groups:
                for p in group["params"]:
                    p.grad = None
        self._note_commit()


def elastic_data_parallel(
    model: torch.nn.Module,
    comm: Comm | Callable[[], Comm],
    optimizer: torch.optim.Optimizer,
    *,
    sampler: ElasticSampler | None = None,
    extra: Mapping[str, Stateful] | None = None,
    bucket_cap_mb: float = 25.0,
) -> ElasticDataParallel:
    """Trains one model on all peers, step by step, whoever comes and goes: the loop stays as it is.

        sampler = ElasticSampler(len(data), global_batch=64)
        run = elastic_data_parallel(model, comm, optimizer, sampler=sampler)
        for x, y in run.batches(data, steps=1000, num_workers=2):
            loss(model(x), y).backward()       # gradients are reduced, and committed on all peers or on none
            optimizer.step()
            optimizer.zero_grad()

    Behind backward(), `p.grad` is the mean over the samples of the whole global batch: the loss is a mean
    over this peer's samples, and each peer counts by how many it has. Clip, scale and log as with one
    process.

    model       a plain module; or one wrapped in DistributedDataParallel, whose process group is this peer's
                alone (of one rank, or of the ranks of an island); or one that fully_shard() was called on,
                with the ranks of an island, where `comm` connects the peers that have the same shard
    comm        a Communicator, or a function that makes one: called when all else is there, since from its
                admission on the others wait for this peer. `run.comm` is it; `with run:` leaves
    optimizer   of that model. Its step() does nothing where there is nothing to apply
    sampler     global batches that are the same whatever the membership; its position is shared. None: the
                data is the user's affair, and `run.samples` says what a peer's gradients weigh
    extra       {name: object with state_dict()} that newcomers are given too: learning rate schedulers. Step
                them in every iteration
    bucket_cap_mb  gradients travel in parts of so many MiB while backward still runs. The same on all peers

    The call takes the run's state: all begin with the same bits, and a newcomer with those of the others.
    Peers may die at any moment. What one of them had reduced but not committed is taken out again, as every
    peer keeps its gradients until all parts of a step are of the same peers; its samples are the first of
    the next batch. Survivors do not repeat forward or backward. Newcomers enter between two batches, where
    nothing runs. What only the optimizer changes may travel until the next optimizer.step(), which waits for
    it: nobody is sent half a step. The newcomer's first step counts nothing, with one sample of weight 0.
    Who was evicted but lives, or lost the master, comes back the same way; the step in between is void for
    it. As long as no master is there, batches() and boundary() raise ConnectError: call them again.

    An error of the communicator is raised by optimizer.step() or by batches(), not by backward(). A backward
    pass that raised may be done again, with the same samples. Behind backward(), either all peers take the
    optimizer's step or none does, as a gradient scaler decides by what is the same everywhere.

    Running statistics of batch normalization are averaged with each step; other buffers stay each peer's own,
    but for what newcomers get. Frozen parameters are shared, and travel to newcomers only.
    """
    return ElasticDataParallel(
        model, comm, optimizer, sampler=sampler, extra=extra, bucket_cap_mb=bucket_cap_mb
    )
