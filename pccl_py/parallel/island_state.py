"""What all islands hold alike, rank by rank: shards of the model and of its optimizer, and counters.

Does no communication, and is touched by the training thread only, between two steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ..errors import UsageError
from ..shared_state import SharedState
from .counter import Counter
from .island_layout import fsdp1_units, layout_of, local, local_shards, parameters_of, shortened
from .optimizer_shards import OptimizerShards

# A line of the layout as an error text about shared states names it: it is the name of an empty tensor.
_AROUND = ("the run goes on without this peer: ", "; call rejoin() to come back as a new one")
_LINE = re.compile(r"'layout: (.*?)(?: float32\[0\])?'(?: \(float32\[0\]\))?")


class IslandState:
    """`extra`: tensors of the user's that healing brings too.
    admissions: synchronizations of a running run, each of which may have healed an island."""

    steps, admissions = Counter(0), Counter(1)

    def __init__(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, extra: Mapping[str, Tensor]
    ) -> None:
        self._model = model
        self._extra = dict(extra)
        self.counters = torch.zeros(2, dtype=torch.int64)
        self._optimizer = optimizer
        self._inner: OptimizerShards | None = None
        self.model_layout = layout_of(model)

    def shared(self) -> SharedState:
        """With revision 0, over the memory that the model and the optimizer have now."""
        inner = self._inner_shards()
        lines = [inner.layout()] if inner is not None else []
        tensors = self._tensors()
        tensors |= {f"buffer {name}": local(b) for name, b in self._model.named_buffers()}
        return SharedState({shortened(n): t for n, t in tensors.items()} | self._layout(lines))

    def with_layout(self, state: SharedState) -> SharedState:
        """A state of the caller's, which then only islands with the same model layout can share."""
        merged = SharedState(state.tensors | self._layout([]), state.revision)
        merged.torn = state.torn
        return merged

    def take(self) -> None:
        """The memory has the elected content: the optimizer follows."""
        if self._inner is not None:
            self._inner.take()

    def digest(self) -> str:
        """32 hexadecimal digits over this rank's parameters, optimizer state, counters and extra."""
        return SharedState(self._tensors()).digest().hex()

    def _tensors(self) -> dict[str, Tensor]:
        inner = self._inner_shards()
        tensors = {f"model {name}": shard for name, shard in local_shards(self._model).items()}
        tensors |= inner.tensors() if inner is not None else {}
        tensors |= {f"extra {name}": local(tensor) for name, tensor in self._extra.items()}
        return tensors | {"counters": self.counters}

    def _layout(self, lines: list[str]) -> dict[str, Tensor]:
        return {f"layout: {line}": torch.empty(0) for line in self.model_layout + lines}

    def _inner_shards(self) -> OptimizerShards | None:
        """Made when it is first asked for: an optimizer that averages parameters needs none of it."""
        if self._inner is None and self._optimizer is not None:
            names = {p: name for name, p in parameters_of(self._model).items()}
            self._inner = OptimizerShards(self._optimizer, names)
        return self._inner


def gradients(model: torch.nn.Module) -> list[Tensor]:
    """This rank's shards of them, in the order of the parameters, zeros where a backward pass made none.

    A parameter that has no elements here has no gradient either. UsageError where no parameter has one.
    """
    wanted = [p for p in model.parameters() if p.requires_grad]
    if all(p.grad is None for p in wanted):
        raise UsageError("no parameter has a gradient: call backward() first")
    found = []
    for p in wanted:
        if local(p).numel() == 0:
            continue
        if p.grad is None:
            p.grad = torch.zeros_like(p)
        found.append(local(p.grad))
    return found


def groups_of(model: torch.nn.Module) -> list[dist.ProcessGroup]:
    """Process groups over which it is sharded."""
    found: dict[str, dist.ProcessGroup] = {}
    for p in model.parameters():
        if isinstance(p, DTensor):
            found |= {group.group_name: group for group in p.device_mesh.get_all_groups()}
    for unit in fsdp1_units(model):
        if unit.process_group is not None:
            found[unit.process_group.group_name] = unit.process_group
    return list(found.values())


def readable(text: str) -> str:
    """Why a peer is out of the run, without what is not for islands: how a line of the layout becomes a
    tensor's name, and what a single peer would do."""
    for words in _AROUND:
        text = text.replace(words, "")
    return _LINE.sub(r"'\1'", text)
