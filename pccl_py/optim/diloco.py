"""DiLoCo: many inner steps alone, then one outer step together (arXiv 2311.08105, algorithm 1)."""

from __future__ import annotations

import logging
import time
import warnings
import weakref
from enum import Enum
from types import TracebackType
from typing import Any, Protocol, Self

import torch

from ..errors import Cancelled, CollectiveError, Evicted, OutcomeUnknown, PcclError, UsageError
from ..shared_state import SharedState, SyncInfo
from ..work import OpInfo
from . import options
from .outer_state import OuterState
from .stats import Stats, Window

logger = logging.getLogger("pccl_py.optim")


class Comm(Protocol):
    """What the optimizer needs of a Communicator, or of an Island."""

    def update_topology(self) -> bool: ...
    def rejoin(self) -> None: ...
    def sync_shared_state(self, state: SharedState, *, scope: Any) -> SyncInfo: ...
    def all_reduce(
        self, tensors: list[torch.Tensor], op: Any, *, scope: Any, weight: float, on_loss: Any
    ) -> OpInfo: ...


class Stage(Enum):
    """Where a peer is. An exception leaves it there, and the next sync() goes on from it."""

    OUTSIDE = "has not taken the shared state yet"
    TRAINING = "in a window"
    APPLYING = "between a commit and the end of the outer step"
    BOUNDARY = "window closed, somebody waits at the door"
    ADMITTED = "passed the boundary, has to synchronize"


class DiLoCo:
    """Every peer takes `sync_every` steps of its inner optimizer from the same parameters. Then the
    differences outer - local are averaged over the peers, the outer optimizer takes a step with the average
    as its gradient, and the result is where everybody starts the next window.

        with pccl.optim.DiLoCo(comm, model, inner, sync_every=100) as outer:
            for batch in batches:
                loss(model, batch).backward()
                inner.step()          # its hook counts, and closes the window after each 100th
                inner.zero_grad()
            outer.finalize()          # all peers: the last steps count too, and all hold the same bits

    Without `with`, call `sync()` before the first inner step and at the end of each window. A peer that goes
    before the others does so without `finalize()`: its unfinished window is dropped.

    comm                 a Communicator, or an Island for a sharded model. From its admission on the others
                         wait for this peer, so build the model before it; a run that begins with several
                         peers gives it min_islands
    model                parameters that require gradients take part, in float32 whatever their dtype. Buffers
                         and frozen parameters stay each peer's own
    inner                the torch optimizer that trains the model; it has one DiLoCo at a time, until close()
    sync_every           inner steps in a window
    outer_optimizer      `factory(parameters) -> torch optimizer`; None: SGD(lr=0.7, momentum=0.9,
                         nesterov=True). Its state is shared, and so are its learning rates
    pin_memory           outer state in page-locked memory; None: where the model is on a GPU
    inner_state_on_join  what a peer that joins a running run, or comes back, does with the state of its inner
                         optimizer: "keep" or "zero"
    verify_every         compare the outer state between peers after so many windows, and repair it; 0: never.
                         Costs a hash of it and no data

    Peers come and go. A newcomer is admitted at the end of a window and receives the outer state there; it
    trains the next window like the others. Who dies costs the survivors nothing but a repetition of the
    reduction among them. Who was evicted but lives joins again by itself; its unfinished window is dropped.
    A peer without an inner step in the window has weight 0; where all have, the outer step is skipped.

    The other arguments belong to parts that are not built yet: NotBuilt for anything but their default.
    """

    def __init__(
        self,
        comm: Comm,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int,
        outer_optimizer: options.OuterFactory | None = None,
        num_fragments: int = 1,
        fragment_sync_delay: int = 0,
        fragment_update_alpha: float = 0.0,
        quantization: object = None,
        error_feedback: bool = False,
        staleness: str = "none",
        outer_momentum_clip: float | None = None,
        weighting: object = "uniform",
        merge: str = "mean",
        local_steps: str = "fixed",
        backup_device: object = None,
        pin_memory: bool | None = None,
        bucket_cap_mb: float | None = None,
        min_peers: int = 1,
        grace_ms: int = 0,
        inner_state_on_join: str = "keep",
        verify_every: int = 0,
    ) -> None:
        options.check_built(locals())
        if not isinstance(inner, torch.optim.Optimizer):
            raise UsageError(f"inner is a {type(inner).__name__}; pass the torch optimizer of the model")
        self._comm = comm
        self._inner = inner
        self._sync_every = options.count(sync_every, "sync_every", 1)
        self._verify_every = options.count(verify_every, "verify_every", 0)
        self._inner_on_join = options.inner_state_on_join(inner_state_on_join)
        self._outer = OuterState(model, outer_optimizer or options.nesterov, pin_memory)
        self._stage = Stage.OUTSIDE
        self._was_member = False  # of this run or, through a loaded state, of an earlier one
        self._steps = 0  # inner steps in this window
        self._tokens = 0
        self._steps_loaded = 0
        self._entered = False
        self._finalizing = False
        self._all_through = False  # as of the last commit: nobody trained in it who goes on
        self._warned = False
        self.stats = Stats()
        _claim(inner, self)
        self._hook = inner.register_step_post_hook(_counting(weakref.ref(self)))

    # ---- use -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Takes the shared state, and from then on closes windows by itself."""
        if self._stage is not Stage.TRAINING:
            self.sync()
        self._entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops closing windows. An unfinished one stays in the model of this peer only: see finalize()."""
        self._entered = False

    def close(self) -> None:
        """Takes the hook off the inner optimizer, which another DiLoCo may then have."""
        self._entered = False
        self._hook.remove()
        if _owner(self._inner) is self:
            del _owners[self._inner]

    def sync(self) -> Window | None:
        """Ends the window: reduction, outer step, admission of newcomers. The model then is the outer one.

        Returns the window, or None where this peer took the shared state instead: in the first call, and when
        it was evicted and has joined again. Raises what the communicator raises; call it again to go on.
        """
        while True:
            try:
                return self._advance()
            except (Evicted, OutcomeUnknown) as error:
                logger.warning("%s; joining again at the next boundary", error)
                self._stage = Stage.OUTSIDE
                self._drop_window()
                self._comm.rejoin()
                self.stats.rejoins += 1

    def finalize(self) -> None:
        """The end of training, on all peers: reduces what is left, and returns when every peer is through.

        The last window may be shorter, and peers may have taken different numbers of steps: who is through
        takes part in the windows of the others without weight. All leave with the bits of the same outer
        parameters in their models. A shorter window weighs as much as a full one. Costs one reduction at
        least. Raises what sync() raises; call it again to go on.
        """
        if self._stage is Stage.OUTSIDE and not self._was_member:
            raise UsageError("finalize() before the first sync(): nothing was trained together")
        self._finalizing = True
        try:
            self._all_through &= self._stage is not Stage.TRAINING  # else it was interrupted behind a commit
            while not self._all_through or self._stage is not Stage.TRAINING:
                self.sync()
        finally:
            self._finalizing = False

    def add_tokens(self, tokens: int) -> None:
        """Counts what this peer trains on, before inner.step(). A commit adds all peers' to `tokens`."""
        self._tokens += options.count(tokens, "tokens", 0)

    # ---- what there is to see ------------------------------------------------------------------------------

    @property
    def pending_steps(self) -> int:
        """Inner steps of this peer since the last commit; 0 right after a window."""
        return self._steps

    @property
    def windows(self) -> int:
        """Windows that the run has committed; the same on every peer, like the next three."""
        return self._outer.windows

    @property
    def outer_step(self) -> int:
        """Outer steps that the run has applied."""
        return self._outer.outer_step

    @property
    def inner_step(self) -> int:
        """Inner steps of one peer since the run began, up to the last commit: for learning rate schedules."""
        return self._outer.inner_step

    @property
    def tokens(self) -> int:
        """Tokens of all peers up to the last commit, as far as add_tokens() was told."""
        return self._outer.tokens

    @property
    def outer_optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer on the outer parameters. Change its learning rates on all peers alike."""
        return self._outer.optimizer.torch

    def outer_parameters(self) -> dict[str, torch.Tensor]:
        """Copies of the outer parameters by name, float32, on the host."""
        found = self._outer.state_dict()["parameters"]
        assert isinstance(found, dict)
        return found

    def state_digest(self) -> str:
        """32 hexadecimal digits over everything that is shared; equal on all peers after each window."""
        return self._outer.digest()

    # ---- a window ------------------------------------------------------------------------------------------

    def _advance(self) -> Window | None:
        if self._stage is Stage.APPLYING:
            raise UsageError("an outer step was interrupted and its state is damaged: leave, and join anew")
        if self._stage is Stage.OUTSIDE:
            self._take_shared_state()
            return None
        if self._stage is Stage.TRAINING:
            self._close_window()
        if self._stage is Stage.BOUNDARY:
            began = time.monotonic()
            self._comm.update_topology()
            self.stats.state_s += time.monotonic() - began
            self._stage = Stage.ADMITTED
        if self._stage is Stage.ADMITTED:
            self._take_shared_state()
        return self.stats.last

    def _close_window(self) -> None:
        outer, steps = self._outer, self._steps
        weight = 1.0 if steps else 0.0
        if steps:
            outer.take_delta()
        else:
            outer.delta.zero_()
        delta_norm = _norm(outer.delta)
        # Divided by the weight, so that the weighted average times the sum of weights is a plain sum.
        goes_on = not self._finalizing
        own = [float(steps), float(self._tokens), 1.0, float(goes_on)] if steps else [0.0] * 4
        counts = torch.tensor(own, dtype=torch.float64) / (weight or 1.0)
        info = self._reduce([outer.delta, counts], weight)
        self._stage = Stage.APPLYING
        committed_at = time.monotonic()
        total = info.weight or 0.0
        average_norm = _norm(outer.delta)
        steps_sum, tokens, peers, going_on = (counts * total).tolist()
        self._all_through = round(going_on) == 0
        self._apply(round(steps_sum / max(peers, 1)), round(tokens), total)
        self.stats.add(
            Window(
                number=outer.windows,
                outer_step=outer.outer_step,
                contributors=info.contributors,
                weight=total,
                waiting=info.waiting,
                steps=steps,
                delta_norm=delta_norm,
                average_norm=average_norm,
                bytes_sent=info.bytes_sent,
                bytes_received=info.bytes_received,
                attempts=info.attempts,
                wait_s=info.seconds,
                committed_at=committed_at,
            )
        )
        self._stage = self._after_window(info.waiting)

    def _reduce(self, tensors: list[torch.Tensor], weight: float) -> OpInfo:
        while True:
            try:
                return self._comm.all_reduce(tensors, "avg", scope="run", weight=weight, on_loss="retry")
            except Cancelled as error:  # another peer was interrupted in it and may leave; we lose no window
                logger.warning("%s; reducing again", error)

    def _apply(self, steps: int, tokens: int, weight: float) -> None:
        if weight > 0:
            self._outer.apply(steps, tokens)
        else:
            self._outer.skip()
        self._outer.store_to_model()
        self._drop_window()

    def _after_window(self, waiting: int) -> Stage:
        """By what all peers know alike. Whether somebody was admitted is not: a joiner may die at once."""
        if waiting:
            return Stage.BOUNDARY
        if self._verify_every and self._outer.windows % self._verify_every == 0:
            return Stage.ADMITTED
        return Stage.TRAINING

    def _drop_window(self) -> None:
        self._steps = self._tokens = self._steps_loaded = 0

    # ---- the shared state ----------------------------------------------------------------------------------

    def _take_shared_state(self) -> None:
        joining = self._stage is Stage.OUTSIDE
        if self._steps != self._steps_loaded and joining:
            raise UsageError(f"{self._steps} inner steps before the first sync(), which says where to start")
        outer = self._outer
        if not self._was_member:
            outer.load_from_model()
        outer.before_sync()
        offered = outer.shared.revision
        began = time.monotonic()
        info = self._synchronize()
        outer.after_sync()
        changed = bool(info.donors) or info.revision != offered
        if changed or not self._steps:
            outer.store_to_model()
            self._drop_window()
        if joining and info.revision > 0 and changed and self._inner_on_join == "zero":
            self._inner.state.clear()
        self._note(info, time.monotonic() - began, repaired=changed and not joining)
        self._was_member = True
        self._stage = Stage.TRAINING

    def _synchronize(self) -> SyncInfo:
        while True:
            try:
                return self._comm.sync_shared_state(self._outer.shared, scope="run")
            except Cancelled as error:
                logger.warning("%s; synchronizing again", error)
            except CollectiveError:
                raise  # on every peer alike: they call again
            except PcclError:
                self._outer.shared.revision = 0  # what is here may be a mixture, and must win no election
                raise

    def _note(self, info: SyncInfo, seconds: float, *, repaired: bool) -> None:
        stats = self.stats
        stats.state_bytes_sent += info.bytes_sent
        stats.state_bytes_received += info.bytes_received
        stats.state_s += seconds
        stats.synchronizations += 1
        if repaired:
            stats.repairs += 1
            text = "the outer state of this peer differed after window %d and was mended"
            logger.warning(text, self._outer.windows)

    # ---- checkpoint ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that is not in the model and the inner optimizer, at any moment between two inner steps."""
        private = {"steps": self._steps, "window_tokens": self._tokens}
        return {"kind": "DiLoCo", **self._outer.state_dict(), **private}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Before the first sync(). For the middle of a window, load the model and the inner optimizer too.

        Where peers load different states, the one with the most windows wins and the others start from it.
        """
        if self._stage is not Stage.OUTSIDE:
            raise UsageError("load_state_dict() after the first sync(): load before it, or peers differ")
        if saved.get("kind") != "DiLoCo":
            raise UsageError(f"the saved state is of {saved.get('kind')!r}, not of 'DiLoCo'")
        self._outer.load_state_dict(saved)
        self._steps = self._steps_loaded = int(saved["steps"])
        self._tokens = int(saved["window_tokens"])
        self._was_member = True

    def __repr__(self) -> str:
        size = self._outer.parameters.numel()
        return f"<DiLoCo of {size} parameters: {self._stage.value}, {self._outer.windows} windows>"

    def _on_step(self) -> None:
        self._steps += 1
        if self._steps < self._sync_every:
            return
        if self._entered:
            self.sync()
        elif self._stage is Stage.OUTSIDE and not self._warned:
            self._warned = True
            text = f"{self._steps} inner steps and no sync(): use this DiLoCo in a `with`, or call its sync()"
            warnings.warn(f"{text} before the first step and after each window", stacklevel=3)


def _counting(ref: weakref.ref[DiLoCo]) -> Any:
    """A hook that does not keep its optimizer alive."""

    def hook(*_: object) -> None:
        diloco = ref()
        if diloco is not None:
            diloco._on_step()

    return hook


# Whose hook an inner optimizer has.
_owners: weakref.WeakKeyDictionary[torch.optim.Optimizer, weakref.ref[DiLoCo]] = weakref.WeakKeyDictionary()


def _owner(inner: torch.optim.Optimizer) -> DiLoCo | None:
    owner = _owners.get(inner)
    return None if owner is None else owner()


def _claim(inner: torch.optim.Optimizer, diloco: DiLoCo) -> None:
    """Two that count the steps of one optimizer would each undo what the other does to the model."""
    if (owner := _owner(inner)) is not None:
        raise UsageError(f"inner has its {owner!r} already: close() that one first, or use it")
    _owners[inner] = weakref.ref(diloco)


def _norm(flat: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(flat))
