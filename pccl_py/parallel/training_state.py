"""What a newcomer is given: model, optimizer, sampler, and what else the user names.

Everything here runs on the thread that trains, between two steps, so that nothing changes while it is sent.
Tensors are the live ones: the newcomer's are filled in place, and no copy is made on either side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..shared_state import SharedState
from ..tensors import describe
from .counter import Counter
from .elastic_sampler import ElasticSampler
from .fsdp_gradients import local_of
from .leaves import copied, plain_of, tensors_of, with_plain

_HEADROOM = 256  # plain values grow by some digits while a newcomer compares sizes
_BEYOND_FLAGS = 3  # numbers of the survey in front of the flags


class Stateful(Protocol):
    """What `extra` takes, such as a learning rate scheduler."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class TrainingState:
    """steps: optimizer steps of the run that this peer's state has behind it.

    model: not wrapped in DDP.    extra: by name.
    """

    steps = Counter(0)

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        sampler: ElasticSampler | None,
        extra: Mapping[str, Stateful],
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._sampler = sampler
        self._extra = dict(extra)
        self._extra_states: dict[str, dict[str, Any]] = {}
        self.counters = np.full(1, 0 if sampler is None else sampler.step, np.int64)
        self._plain: np.ndarray[Any, np.dtype[np.uint8]] = np.zeros(0, np.uint8)
        self._rehearsed: set[int] = set()  # parameters whose state means nothing yet
        self.member = False  # of this run
        self.incomplete = False  # numbers are the run's, tensors are on their way
        self.torn = False

    @property
    def revision(self) -> int:
        """0 is kept for those that never trained, so that they win no election; a sampler's loaded state
        says that this one has."""
        known = self.member or self.steps
        return self.steps + 1 if known and not self.incomplete else 0

    # ---- before the synchronization: which tensors there are ----

    def survey(self) -> Tensor:
        """int64: to be reduced with max. It tells, of the peers with the highest revision, how long their
        plain values are and which parameters their optimizers have state for."""
        self._extra_states = {name: copied(extra.state_dict()) for name, extra in self._extra.items()}
        rank = self.revision << 32
        state, made = self._optimizer.state, self._rehearsed
        has = [int(bool(state.get(p)) and id(p) not in made) for _, p in self._parameters()]
        head = [self.revision, int(self.member), rank | len(self._encoded())]
        return torch.tensor([*head, *(rank | flag for flag in has)])

    def prepare(self, survey: Tensor) -> tuple[SharedState, SharedState]:
        """What is small or changes in forward, and what only an optimizer changes. survey: the maximum over
        all peers. The optimizer's state is made, or dropped, to be as theirs."""
        named = self._parameters()
        flags = [int(value) & 1 for value in survey[_BEYOND_FLAGS:]]
        if len(flags) != len(named):
            raise UsageError("peers train models with different numbers of parameters")
        wanted = [p for (_, p), flag in zip(named, flags, strict=True) if flag]
        for (_, p), flag in zip(named, flags, strict=True):
            if not flag:
                self._optimizer.state.pop(p, None)
        self._rehearse([p for p in wanted if not self._optimizer.state.get(p)])
        self._write_plain(int(survey[2]) & 0xFFFFFFFF)
        states = SharedState(self.numbers(), self.revision), SharedState(self.tensors(), self.revision)
        for state in states:
            state.torn = self.torn
        states[1].blank = self.revision == 0 and int(survey[0]) > 0
        return states

    def rehearse(self) -> None:
        """Makes the optimizer's state in advance, as a newcomer will need it; who founds a run drops it."""
        lacking = [p for _, p in self._parameters() if not self._optimizer.state.get(p)]
        self._rehearse(lacking)
        self._rehearsed = {id(p) for p in lacking}

    def _rehearse(self, parameters: list[torch.nn.Parameter]) -> None:
        """A step of length 0 without gradients makes their state. Its contents mean nothing: only a peer with
        a lower revision than others lacks some."""
        if not parameters:
            return
        gradients = {p: p.grad for _, p in self._parameters()}
        rates = [group.get("lr") for group in self._optimizer.param_groups]
        for p in gradients:
            p.grad = None
        for p in parameters:
            p.grad = torch.zeros_like(p)
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = torch.zeros_like(rate) if isinstance(rate, Tensor) else 0.0
        self._optimizer.step()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        for p, gradient in gradients.items():
            p.grad = gradient

    # ---- the tensors ----

    def tensors(self) -> dict[str, Any]:
        """What an optimizer changes, and nothing else: live, by name. A DTensor's name tells how it is
        sharded, so that another layout is refused."""
        found: dict[str, Any] = {}
        for name, parameter in self._model.named_parameters():
            found[f"model {name}{_layout(parameter)}"] = local_of(parameter.detach())
        for name, p in self._parameters():
            for path, tensor in tensors_of(self._optimizer.state.get(p, {}), name).items():
                found[f"optimizer {path}{_layout(tensor)}"] = local_of(tensor.detach())
        return found

    def numbers(self) -> dict[str, Any]:
        """The rest, persistent buffers included; and, as names of nothing, what tensors() are."""
        found: dict[str, Any] = {"steps": self.counters, "plain values": self._plain}
        for name, tensor in self.tensors().items():
            found[f"{name}: {describe(tensor)}"] = np.zeros(0, np.uint8)
        for name, buffer in self._persistent_buffers().items():
            found[f"buffer {name}"] = buffer
        for path, tensor in tensors_of(self._groups(), "groups").items():
            found[f"optimizer {path}"] = tensor
        if self._sampler is not None:
            s = self._sampler
            kind = f"{s.samples} samples, global batch {s.global_batch}, seed {s.seed}, shuffle {s.shuffle}"
            found[f"sampler of {kind}"] = s.state
        for name, state in self._extra_states.items():
            found |= tensors_of(state, f"extra {name}")
        return found

    def _persistent_buffers(self) -> dict[str, Tensor]:
        kept = self._model.state_dict(keep_vars=True).keys()
        return {name: buffer for name, buffer in self._model.named_buffers() if name in kept}

    def _parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Of the optimizer, under the model's names."""
        held = {id(p) for group in self._optimizer.param_groups for p in group["params"]}
        return [(name, p) for name, p in self._model.named_parameters() if id(p) in held]

    def digest(self) -> str:
        self.survey()
        self._write_plain(len(self._encoded()))
        return SharedState(self.numbers() | self.tensors()).digest().hex()

    # ---- numbers and texts ----

    def _groups(self) -> list[dict[str, Any]]:
        groups = self._optimizer.param_groups
        return [{k: v for k, v in group.items() if k not in ("params", "param_names")} for group in groups]

    def _trees(self) -> list[tuple[str, Any]]:
        states = [(f"optimizer {name}", self._optimizer.state.get(p, {})) for name, p in self._parameters()]
        extras = [(f"extra {name}", state) for name, state in self._extra_states.items()]
        return [("groups", self._groups()), *states, *extras]

    def _encoded(self) -> bytes:
        return json.dumps([plain_of(tree, path) for path, tree in self._trees()]).encode()

    def _write_plain(self, size: int) -> None:
        self._plain = np.full(size + _HEADROOM, ord(" "), np.uint8)
        data = self._encoded()[: self._plain.size]  # cut short, it is that of a lower revision
        self._plain[: len(data)] = np.frombuffer(data, np.uint8)

    def taken(self) -> None:
        """numbers() hold what was elected: what is kept as numbers and texts follows."""
        parts = json.loads(self._plain.tobytes())
        trees = self._trees()
        if len(parts) != len(trees):
            raise UsageError("the run's schedulers or parameter groups are others than this peer's")
        found = [with_plain(tree, iter(part)) for (_, tree), part in zip(trees, parts, strict=True)]
        names = [p for _, p in self._parameters()]
        for group, values in zip(self._optimizer.param_groups, found[0], strict=True):
            group.update(values)
        for p, values in zip(names, found[1:], strict=False):
            if values:
                self._optimizer.state[p].update(values)
        for values, extra in zip(found[1 + len(names) :], self._extra.values(), strict=True):
            extra.load_state_dict(values)
        self._rehearsed = set()

    def complete(self) -> None:
        """tensors() hold what was elected, too."""
        self.member, self.incomplete = True, False


def _layout(tensor: Tensor) -> str:
    placements = getattr(tensor, "placements", None)
    return "" if placements is None else f" of {list(tensor.shape)} {list(map(repr, placements))}"
