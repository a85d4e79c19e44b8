"""The outer state: parameters, optimizer buffers, counters, and an average that waits for its application;
all bit-identical on every peer.

Owned by one optimizer, and touched by the user's thread only. It does no communication: `shared` is what a
synchronization brings to a joiner, `delta` what a reduction averages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from xxhash import xxh3_64_hexdigest

from ..errors import UsageError
from ..shared_state import SharedState
from ..staging import fence
from .fragments import balanced
from .model_parameters import ModelParameters
from .options import OuterFactory
from .outer_optimizer import OuterOptimizer, split

_COUNTERS = ("windows", "outer_step", "inner_step", "tokens")
_SAVED = (
    *("parameters", "buffers", "counters", "fragment_steps", "learning_rates"),
    *("update_norm", "pending", "pending_counts", "start"),
)
_SWAPPED = 1 << 20  # elements that change places at a time
PENDING_COUNTS = 6  # weight; steps, tokens and number of those who trained; of those who go on; of either


class Fragment(NamedTuple):
    """Parameters that are reduced together: those from `first` to `last` (exclusive) in the flat order, whose
    elements are `begin` to `end` of the flat tensors."""

    number: int
    first: int
    last: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


class OuterState:
    """Flat float32 tensors: `parameters` [N], ordered by fragment; `delta` and `pending` of the size of the
    largest fragment, the same memory unless `pipelined`.

    N counts the elements of the model's parameters that require gradients; a tied one counts once. Of a
    parameter that is sharded over an island (FSDP1, FSDP2, any DTensor), those of this rank's shard.
    `pin_memory`: page-locked, so that a device copies at full speed; None: where the model is on one.

    settings      what must be the same on all peers, beside the model and the outer optimizer
    overlaps      an average may wait for its application, and so is part of the shared state
    pipelined     the next delta is taken before the last average is applied
    own_start     peers begin a window elsewhere than at the outer parameters
    extra         tensors of others that are shared, too
    """

    def __init__(
        self,
        model: torch.nn.Module,
        factory: OuterFactory,
        pin_memory: bool | None,
        *,
        num_fragments: int = 1,
        device: torch.device | None = None,
        settings: str = "",
        overlaps: bool = False,
        pipelined: bool = False,
        own_start: bool = False,
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model = ModelParameters(model)
        groups = balanced(self.model.global_sizes, self.model.names, num_fragments)
        self.model.order([index for group in groups for index in group])
        self.names = self.model.names
        self._shapes = self.model.shapes
        pinned = self.model.on_gpu if pin_memory is None else pin_memory
        self._memory: dict[str, Any] = {"pin_memory": pinned} if device is None else {"device": device}
        self.fragments = _fragments([len(group) for group in groups], self._shapes)
        self.parameters = torch.empty(self.fragments[-1].end, **self._memory)
        largest = max(fragment.size for fragment in self.fragments)
        self.delta = torch.zeros(largest, **self._memory)
        self.pending = torch.zeros(largest, **self._memory) if pipelined else self.delta
        self._views = split(self.parameters, self._shapes)
        self.start = torch.empty_like(self.parameters) if own_start else None
        self._outer = [torch.nn.Parameter(view) for view in self._views]
        self.load_from_model()
        self.optimizer = OuterOptimizer(factory, self._outer)
        self.load_from_model()  # the optimizer has rehearsed a step
        self._counters = torch.zeros(len(_COUNTERS), dtype=torch.int64)
        self._fragment_steps = torch.zeros(num_fragments, dtype=torch.int64)
        self._pending_counts = torch.zeros(1 + PENDING_COUNTS, dtype=torch.float64)
        self._phase = torch.zeros(1, dtype=torch.int64)
        self.update_norm = torch.zeros(1, dtype=torch.float64)  # of the last outer step
        self._rates = torch.tensor(self.optimizer.learning_rates, dtype=torch.float64)
        self._overlaps = overlaps
        self._extra = dict(extra or {})
        # Another model of the same size, or another outer optimizer, is refused by name.
        described = f"{self.model.layout} {self.optimizer.described} {settings}"
        self.layout = xxh3_64_hexdigest(described.encode())
        self.shared = SharedState(self._tensors(pending=overlaps))

    def _tensors(self, *, pending: bool) -> dict[str, Tensor]:
        tensors = {f"outer {key}": buffer for key, buffer in self.optimizer.buffers.items()}
        tensors[f"outer parameters, model and optimizer {self.layout}"] = self.parameters
        tensors["counters"] = self._counters
        tensors["outer steps of fragments"] = self._fragment_steps
        tensors["outer learning rates"] = self._rates
        tensors["phase"] = self._phase
        tensors["norm of the last outer step"] = self.update_norm
        tensors |= self._extra
        if pending:
            tensors["pending average"] = self.pending
            tensors["counts of the pending average"] = self._pending_counts
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

    @property
    def fragment(self) -> Fragment:
        """The one whose turn it is."""
        return self.fragments[self.windows % len(self.fragments)]

    # ---- model <-> outer parameters ------------------------------------------------------------------------

    @torch.no_grad()
    def load_from_model(self) -> None:
        for view, local in zip(self._views, self.model.local(), strict=True):
            view.copy_(local)
        if self.start is not None:
            self.start.copy_(self.parameters)

    @torch.no_grad()
    def store_to_model(self, fragment: Fragment | None = None, keep: float = 0.0) -> None:
        """Of one fragment, or of all. keep: the share of the model's own values that stays (alpha)."""
        chosen = slice(None) if fragment is None else slice(fragment.first, fragment.last)
        source = self._views
        if self.start is not None:
            self.start.copy_(self.parameters)
        self._store(chosen, source, keep)

    @torch.no_grad()
    def store_ahead(self, lead: float) -> None:
        """The model starts ahead by `lead` times this peer's own delta."""
        assert self.start is not None
        torch.sub(self.parameters, self.delta, alpha=lead, out=self.start)
        self._store(slice(None), split(self.start, self._shapes))

    @torch.no_grad()
    def store_looking_ahead(self) -> None:
        """The model starts where the outer optimizer would lead if this peer's own delta were the average.
        Neither the outer parameters nor the optimizer change. Where no average waits."""
        assert self.start is not None and not self.has_pending
        before = {key: buffer.clone() for key, buffer in self.optimizer.buffers.items()}
        self.start.copy_(self.parameters)
        self._step(self.pending.copy_(self.delta))  # some write to gradients, and the delta travels
        for ahead, now in zip(
            torch.split(self.parameters, _SWAPPED), torch.split(self.start, _SWAPPED), strict=True
        ):
            kept = now.clone()
            now.copy_(ahead)
            ahead.copy_(kept)
        for key, buffer in self.optimizer.buffers.items():
            buffer.copy_(before[key])
        self._restore()
        self._store(slice(None), split(self.start, self._shapes))

    def _store(self, chosen: slice, source: list[Tensor], keep: float = 0.0) -> None:
        fence.before_write()
        for local, view in zip(self.model.local()[chosen], source[chosen], strict=True):
            local.copy_(torch.lerp(view, local.to(view), keep) if keep else view)
        self.model.reshard()

    def make_delta(self, fragment: Fragment, *, moved: bool) -> None:
        """take_delta(), or zeros of a peer that has not moved."""
        if moved:
            self.take_delta(fragment)
        else:
            self.delta.zero_()

    @torch.no_grad()
    def take_delta(self, fragment: Fragment | None = None) -> None:
        """delta = outer - local, in float32."""
        fragment = fragment or self.fragment
        base = self.parameters if self.start is None else self.start
        delta = self.delta[: fragment.size]
        local = self.model.local()[fragment.first : fragment.last]
        starts = self.of(base[fragment.begin : fragment.end], fragment)
        for view, start, value in zip(self.of(delta, fragment), starts, local, strict=True):
            torch.sub(start, value.to(start), out=view)

    @torch.no_grad()
    def rebase(self, fragment: Fragment, old: Tensor) -> None:
        """Moves the model by what the outer step moved the outer parameters, so that its own delta stays."""
        fence.before_write()
        moved = self.parameters[fragment.begin : fragment.end] - old
        local = self.model.local()[fragment.first : fragment.last]
        for value, view in zip(local, self.of(moved, fragment), strict=True):
            value.add_(view.to(value))
        self.model.reshard()

    def views(self) -> list[Tensor]:
        """The outer parameters, one by one."""
        return self._views

    def of(self, flat: Tensor, fragment: Fragment) -> list[Tensor]:
        """Views of a flat tensor, one for each parameter of the fragment."""
        return split(flat, self._shapes[fragment.first : fragment.last])

    # ---- changes, after a commit only ----------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        return bool(self._pending_counts[0])

    @property
    def pending_counts(self) -> list[float]:
        """Of the pending average: sum of weights; inner steps, tokens and number of the peers that trained
        for it; number of those that go on, and of those that did or do."""
        return [float(value) for value in self._pending_counts[1:]]

    def commit(self, counts: list[float]) -> None:
        """What lies in `delta` is the average now, and waits for apply() or skip()."""
        if self.pending is not self.delta:
            self.pending, self.delta = self.delta, self.pending
            self.shared = SharedState(self._tensors(pending=self._overlaps), self.shared.revision)
        self.pending[self.fragment.size :].zero_()  # of a larger fragment
        self._pending_counts.copy_(torch.tensor([1.0, *counts], dtype=torch.float64))

    def average(self) -> Tensor:
        return self.pending[: self.fragment.size]

    def apply(self, steps: int, tokens: int) -> None:
        """Takes the outer step with the pending average. steps: the mean over peers, tokens: their sum."""
        self._step(self.average())
        self._fragment_steps[self.fragment.number] += 1
        self._counters += torch.tensor([1, 1, steps, tokens])
        self._applied()

    def _step(self, gradient: Tensor) -> None:
        fragment = self.fragment
        outer = self._outer[fragment.first : fragment.last]
        for parameter, part in zip(outer, self.of(gradient, fragment), strict=True):
            parameter.grad = part
        self.optimizer.step(outer)
        for parameter in outer:
            parameter.grad = None

    def skip(self) -> None:
        """A window in which nobody had trained: counted, and nothing else changes."""
        self._counters[0] += 1
        self._applied()

    def _applied(self) -> None:
        self._pending_counts.zero_()
        self.shared.revision = self.revision

    # ---- synchronization -----------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Of a member's state; 0 is kept for those that never were one, so that they win no election."""
        return self.windows + 1

    def before_sync(self, phase: int = 0) -> None:
        """phase: 1 where those that synchronize are members at a boundary; a joiner learns it from them."""
        self._phase[0] = phase
        self._rates.copy_(torch.tensor(self.optimizer.learning_rates, dtype=torch.float64))
        if self._overlaps and not self.has_pending:
            self.pending.zero_()  # what is left of the last average would differ from a joiner's

    def after_sync(self) -> int:
        """The tensors hold the elected content: the optimizer follows. Returns the elected phase."""
        phase = int(self._phase[0])
        self._phase[0] = 0
        self._restore()
        self.optimizer.learning_rates = self._rates.tolist()
        self.shared.revision = self.revision
        return phase

    def _restore(self) -> None:
        stepped = [
            parameter
            for fragment in self.fragments
            if self._fragment_steps[fragment.number] > 0
            for parameter in self._outer[fragment.first : fragment.last]
        ]
        self.optimizer.restore(stepped)

    def digest(self) -> str:
        self._rates.copy_(torch.tensor(self.optimizer.learning_rates, dtype=torch.float64))
        return SharedState(self._tensors(pending=self.has_pending)).digest().hex()

    # ---- checkpoint ----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, object]:
        """Copies: `parameters` by name in the model's shapes, `buffers` flat, counters as numbers."""
        return {
            "layout": self.layout,
            "parameters": {n: v.clone() for n, v in zip(self.names, self._views, strict=True)},
            "buffers": {key: buffer.clone() for key, buffer in self.optimizer.buffers.items()},
            "counters": dict(zip(_COUNTERS, self._counters.tolist(), strict=True)),
            "fragment_steps": self._fragment_steps.tolist(),
            "learning_rates": self.optimizer.learning_rates,
            "update_norm": float(self.update_norm),
            "pending": self.average().clone() if self.has_pending else None,
            "pending_counts": self.pending_counts if self.has_pending else None,
            "start": None if self.start is None else self.start.clone(),
        }

    def check_saved(self, saved: Mapping[str, Any], more: Iterable[str]) -> None:
        """Raises UsageError where load_state_dict(), or who wants `more` keys of it, would stop half way."""
        if saved.get("layout") != self.layout:
            raise UsageError(
                "the saved state is of another model, of another outer optimizer or of other settings"
            )
        _check_keys(saved, (*_SAVED, *more))
        _check_keys(saved["counters"], _COUNTERS)
        for key, held in (
            ("parameters", dict(zip(self.names, self._views, strict=True))),
            ("buffers", self.optimizer.buffers),
        ):
            _check_keys(saved[key], held)
            for name, tensor in held.items():
                if (found := saved[key][name].shape) != tensor.shape:
                    raise UsageError(
                        f"{name!r} is {list(found)} and not {list(tensor.shape)} in what was saved"
                    )

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Of what has passed check_saved()."""
        fence.before_write()
        for name, view in zip(self.names, self._views, strict=True):
            view.copy_(saved["parameters"][name])
        for key, buffer in self.optimizer.buffers.items():
            buffer.copy_(saved["buffers"][key])
        self._counters.copy_(torch.tensor([int(saved["counters"][name]) for name in _COUNTERS]))
        self._fragment_steps.copy_(torch.tensor(saved["fragment_steps"]))
        self._rates.copy_(torch.tensor(saved["learning_rates"], dtype=torch.float64))
        self.update_norm.fill_(saved["update_norm"])
        if saved["pending"] is not None:
            self.average().copy_(saved["pending"])
            self._pending_counts.copy_(torch.tensor([1.0, *saved["pending_counts"]], dtype=torch.float64))
        if self.start is not None and saved["start"] is not None:
            self.start.copy_(saved["start"])
        self.after_sync()


def _check_keys(saved: Mapping[str, Any], wanted: Iterable[str]) -> None:
    for key in wanted:
        if key not in saved:
            raise UsageError(f"{key!r} is missing in what was saved: pass all that state_dict() gave")


def _fragments(counts: list[int], shapes: list[torch.Size]) -> list[Fragment]:
    found, first, begin = [], 0, 0
    for index, count in enumerate(counts):
        size = sum(shape.numel() for shape in shapes[first : first + count])
        found.append(Fragment(index, first, first + count, begin, begin + size))
        first, begin = first + count, begin + size
    return found
