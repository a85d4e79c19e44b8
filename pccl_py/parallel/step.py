"""One training step of one peer: from the first gradient of backward to the commit on all peers.

The gradients' side (a plain module's, DDP's, FSDP2's hooks) calls begin(), post() and finish() in each
backward pass; the owner looks at `failure` and `waiting` between steps. Hooks must not raise what the
communicator raises: DDP and the autograd engine would turn it into something else. It is kept for the owner.
"""

from __future__ import annotations

from torch import Tensor

from ..errors import PcclError, UsageError
from .agreement import scale_of
from .norm_buffers import NormBuffers
from .step_card import StepCard
from .step_reduction import Comm, StepReduction

PARTS_MAX = 4094
_LAST = PARTS_MAX  # index of the part that ends the step


class Step:
    """failure: what ended the last attempt without a commit.    reduced: committed, and not applied yet.
    has_result: of the last commit: some sample was used.
    contributors, attempts, waiting: of the last commit.    active: backward passes reduce.
    entering: this peer has no share of this step, as the others had begun it when it got the state."""

    def __init__(self, card: StepCard, norms: NormBuffers) -> None:
        self.card = card
        self._norms = norms
        self._comm: Comm | None = None
        self._reduction: StepReduction
        self._factor = 0.0
        self.active = True
        self.entering = False
        self.reduced = False
        self.has_result = False
        self.failure: PcclError | None = None
        self.contributors: tuple[int, ...] = ()
        self.attempts = 0
        self.waiting = 0
        self.samples = 1  # of this peer's next batch, where there is no sampler

    def connect(self, comm: Comm, tag: int) -> None:
        self._comm = comm
        self._reduction = StepReduction(comm, tag)

    def begin(self) -> float:
        """A backward pass begins. What gradients are to be multiplied by before they are posted."""
        if self.reduced:
            raise UsageError(
                "backward() again before optimizer.step(): put all backward passes of a step but the last "
                "one into `with run.no_sync():`"
            )
        assert self._comm is not None
        self._factor = self.card.fill(self._comm.id, 0 if self.entering else self.samples)
        return self._factor

    def has(self, index: int) -> bool:
        return self._reduction.has(index)

    def post(self, index: int, inputs: Tensor, outputs: Tensor) -> None:
        if self.failure is None:
            try:
                self._reduction.post(index, [inputs], [outputs])
            except PcclError as error:
                self._fail(error)

    def finish(self, inputs: list[Tensor], outputs: list[Tensor]) -> float | None:
        """Ends the step with what was not posted. What outputs are to be multiplied by; None: nothing is to
        be applied, as no sample was used, or there is a `failure`."""
        if self.failure is not None:
            return None
        self._norms.load(self._factor)
        last_in = [self.card.inputs, *self._norms.inputs, *inputs]
        last_out = [self.card.outputs, *self._norms.outputs, *outputs]
        try:
            if not self.has(_LAST):
                self._reduction.post(_LAST, last_in, last_out)
            info = self._reduction.finish()
        except PcclError as error:
            self._fail(error)
            return None
        self.contributors, self.attempts, self.waiting = info.contributors, info.attempts, info.waiting
        return self._committed()

    def _committed(self) -> float | None:
        scale = scale_of(int(self.card.used.sum()), self.card.expected)
        if scale is not None:
            self._norms.store(scale)
        self.card.commit(self.contributors)
        self.reduced, self.has_result = True, scale is not None
        return scale

    def _fail(self, error: PcclError) -> None:
        self.failure = error
        self._reduction.drop()
