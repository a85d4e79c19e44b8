"""The outer state: parameters, optimizer buffers and counters that are bit-identical on every peer.

Owned by one optimizer, and touched by the user's thread only. It does no communication: `shared` is what a
synchronization brings to a joiner, `delta` what a reduction averages.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest

from ..errors import UsageError
from ..shared_state import SharedState
from .options import OuterFactory
from .outer_optimizer import OuterOptimizer, split

_COUNTERS = ("windows", "outer_step", "inner_step", "tokens")


class OuterState:
    """Flat float32 tensors on the host: `parameters` [N], and `delta` [N], whose views are the gradients.

    N counts the elements of the model's parameters that require gradients; a tied one counts once. Of a
    parameter that is sharded over an island (FSDP1, FSDP2, any DTensor), those of this rank's shard.
    `pin_memory`: page-locked, so that a device copies at full speed; None: where the model is on one.
    """

    def __init__(self, model: torch.nn.Module, factory: OuterFactory, pin_memory: bool | None) -> None:
        named = _trainable(model)
        self._model_parameters = [p for _, p in named]
        gathering: list[Any] = [m for m in model.modules() if hasattr(m, "reshard") and hasattr(m, "unshard")]
        self._gathering = gathering  # FSDP2's
        local = self._local()
        self._shapes = [p.shape for p in local]
        pinned = any(p.is_cuda for p in local) if pin_memory is None else pin_memory
        size = sum(p.numel() for p in local)
        self.names = [name for name, _ in named]
        self.parameters = torch.empty(size, pin_memory=pinned)
        self.delta = torch.zeros(size, pin_memory=pinned)
        self._views = split(self.parameters, self._shapes)
        self._delta_views = split(self.delta, self._shapes)
        outer = [torch.nn.Parameter(view) for view in self._views]
        for parameter, gradient in zip(outer, self._delta_views, strict=True):
            parameter.grad = gradient
        self.load_from_model()
        self.optimizer = OuterOptimizer(factory, outer)
        self.load_from_model()  # the optimizer has rehearsed a step
        self._counters = torch.zeros(len(_COUNTERS), dtype=torch.int64)
        self._rates = torch.tensor(self.optimizer.learning_rates, dtype=torch.float64)
        layout = repr([(name, _layout(p)) for name, p in named])
        # Another model of the same size, or another outer optimizer, is refused by name.
        self.layout = xxh3_64_hexdigest(f"{layout} {self.optimizer.described}".encode())
        self.shared = SharedState(self._tensors())

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"outer {key}": buffer for key, buffer in self.optimizer.buffers.items()}
        tensors[f"outer parameters, model and optimizer {self.layout}"] = self.parameters
        tensors["counters"] = self._counters
        tensors["outer learning rates"] = self._rates
        return tensors

    # ---- counters ------------------------------------------------------------------------------------------

    @property
    def windows(self) -> int:
        return int(self._counters[0])

    @property
    def outer_step(self) -> int:
        return int(self._counters[1])

    @property
    def inner_step(self) -> int:
        return int(self._counters[2])

    @property
    def tokens(self) -> int:
        return int(self._counters[3])

    # ---- model <-> outer parameters ------------------------------------------------------------------------

    @torch.no_grad()
    def load_from_model(self) -> None:
        for view, local in zip(self._views, self._checked(), strict=True):
            view.copy_(local)

    @torch.no_grad()
    def store_to_model(self) -> None:
        for local, view in zip(self._checked(), self._views, strict=True):
            local.copy_(view)
        for module in self._gathering:
            module.reshard()  # what FSDP2 gathered in a pass without a backward is old now

    @torch.no_grad()
    def take_delta(self) -> None:
        """delta = outer - local, in float32."""
        for view, local in zip(self._delta_views, self._checked(), strict=True):
            view.copy_(local)
        torch.sub(self.parameters, self.delta, out=self.delta)

    @torch.no_grad()
    def _local(self) -> list[Tensor]:
        """The memory of this rank's part of each parameter."""
        return [p.to_local() if hasattr(p, "to_local") else p for p in self._model_parameters]

    def _checked(self) -> list[Tensor]:
        found = self._local()
        for name, local, shape in zip(self.names, found, self._shapes, strict=True):
            if local.shape != shape:
                raise UsageError(f"parameter {name!r} was {list(shape)} and is {list(local.shape)} now")
        return found

    # ---- changes, after a commit only ----------------------------------------------------------------------

    def apply(self, steps: int, tokens: int) -> None:
        """Takes the outer step with the averaged delta. `steps`: the mean over peers, `tokens`: their sum."""
        self.optimizer.step()
        self._counters += torch.tensor([1, 1, steps, tokens])
        self.shared.revision = self.revision

    def skip(self) -> None:
        """A window in which nobody had trained: counted, and nothing else changes."""
        self._counters[0] += 1
        self.shared.revision = self.revision

    # ---- synchronization -----------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Of a member's state; 0 is kept for those that never were one, so that they win no election."""
        return self.windows + 1

    def before_sync(self) -> None:
        self._rates.copy_(torch.tensor(self.optimizer.learning_rates, dtype=torch.float64))

    def after_sync(self) -> None:
        """The tensors hold the elected content: the optimizer follows."""
        self.optimizer.restore(stepped=self.outer_step > 0)
        self.optimizer.learning_rates = self._rates.tolist()
        self.shared.revision = self.revision

    def digest(self) -> str:
        self.before_sync()
        return self.shared.digest().hex()

    # ---- checkpoint ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """Copies: `parameters` by name in the model's shapes, `buffers` flat, counters as numbers."""
        return {
            "layout": self.layout,
            "parameters": {n: v.clone() for n, v in zip(self.names, self._views, strict=True)},
            "buffers": {key: buffer.clone() for key, buffer in self.optimizer.buffers.items()},
            "counters": dict(zip(_COUNTERS, self._counters.tolist(), strict=True)),
            "learning_rates": self.optimizer.learning_rates,
        }

    def load_state_dict(self, saved: dict[str, object]) -> None:
        if saved.get("layout") != self.layout:
            raise UsageError("the saved state is of another model, or of another outer optimizer")
        parameters, buffers, counters = saved["parameters"], saved["buffers"], saved["counters"]
        rates = saved["learning_rates"]
        assert isinstance(parameters, dict) and isinstance(buffers, dict)
        assert isinstance(counters, dict) and isinstance(rates, list)
        for name, view in zip(self.names, self._views, strict=True):
            view.copy_(parameters[name])
        for key, buffer in self.optimizer.buffers.items():
            buffer.copy_(buffers[key])
        self._counters.copy_(torch.tensor([int(counters[name]) for name in _COUNTERS]))
        self._rates.copy_(torch.tensor(rates, dtype=torch.float64))
        self.after_sync()


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise UsageError("the model has no parameter that requires a gradient")
    for name, p in named:
        if not p.is_floating_point():
            raise UsageError(f"parameter {name!r} is {p.dtype}; outer parameters are real numbers")
        if p.device.type == "meta":
            raise UsageError(f"parameter {name!r} is on the meta device and has no values")
    return named


def _layout(parameter: Any) -> object:
    shape = list(parameter.shape)
    if not hasattr(parameter, "to_local"):
        return shape
    return shape, str(parameter.placements), tuple(parameter.device_mesh.shape)
