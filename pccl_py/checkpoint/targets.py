"""Where the tensors of a checkpoint go: into a state's live tensors where it has them, into new ones else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..errors import StateError
from ..state.boxed import Boxed, World, boxed
from ..state.parts import AnyPart, ModulePart, OptimizerPart, PlainPart
from ..state.train_state import TrainState
from ..values import dtypes, names, tagged
from .manifest import Manifest

# From the name of a tensor in the state to its name in the checkpoint; None: it is left as it is.
Mapped = Mapping[str, str] | Callable[[str], str | None]
_SHOWN = 8


@dataclass(slots=True)
class Targets:
    """`boxes`: memory by name in the checkpoint. When they are read, `take()` hands the parts what they get.

    missing      names of the state that the checkpoint does not have; whole parts too
    unexpected   names of the checkpoint, of the parts asked for, that the state does not have
    live         the state's own tensors among them, by address: their names
    begun        private parts of a rank that was not there when the step was saved: they begin
    """

    boxes: dict[str, list[Boxed]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    live: dict[int, str] = field(default_factory=dict)
    begun: list[str] = field(default_factory=list)
    _takes: list[tuple[AnyPart, Any]] = field(default_factory=list)

    def take(self) -> None:
        for part, tree in self._takes:
            part.take(tree)


@dataclass(frozen=True, slots=True)
class Fit:
    """How a state and what was saved have to fit: `strict`, `parts` and `mapping` of Checkpointer.load."""

    strict: bool = True
    parts: list[str] | None = None
    mapping: Mapped | None = None

    def targets(self, state: TrainState, manifest: Manifest, world: World, what: str) -> Targets:
        """`what` was saved, in words. Raises StateError, with the name, where a shape or dtype is another
        than the saved one, and where all names have to be the same and are not."""
        targets = Targets()
        for name, part in state.parts.items():
            if self.parts is not None and name not in self.parts:
                continue
            private = state.is_private(name)
            saved = manifest.private.get(world.rank, {}) if private else manifest.objects
            root = (f"@{world.rank}", name) if private else (name,)
            if name not in saved:
                new_rank = private and world.rank >= manifest.world  # it had none to save
                (targets.begun if new_rank else targets.missing).append(names.join(root))
                continue
            _PartTargets(part, root, manifest, world, private, self.mapping, targets).add(saved[name])
        if self.strict and (targets.missing or targets.unexpected):
            raise StateError(
                f"{what} and the state differ: not saved: {some(targets.missing)}; not in the state: "
                f"{some(targets.unexpected)}. Pass strict=False, parts= or mapping="
            )
        return targets


def some(held: Sequence[str]) -> str:
    """Names for a message, not all of a thousand."""
    more = f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
    return ", ".join(held[:_SHOWN]) + more if held else "nothing"


class _PartTargets:
    def __init__(
        self,
        part: AnyPart,
        root: tuple[str, ...],
        manifest: Manifest,
        world: World,
        private: bool,
        mapping: Mapped | None,
        targets: Targets,
    ) -> None:
        self._part, self._root, self._manifest = part, root, manifest
        self._world, self._private, self._targets = world, private, targets
        self._mapping = mapping
        self._live = self._live_tensors()
        self._used: set[str] = set()

    def _live_tensors(self) -> dict[str, Tensor]:
        """By name, of parts that hand out their own."""
        live: dict[str, Tensor] = {}
        if not isinstance(self._part, ModulePart | OptimizerPart | PlainPart):
            return live

        def note(path: tagged.Path, value: Any) -> str | None:
            if not isinstance(value, Tensor):
                return None
            if (name := names.join(path)) in live:
                raise StateError(f"two tensors of the state have the name {name}: rename one")
            live[name] = value
            return name

        tagged.encode(self._part.tree(), path=self._root, tensor=note)
        return live

    def add(self, saved: Any) -> None:
        by_saved_name = self._by_saved_name()
        tree = tagged.decode(saved, tensor=lambda name: self._target(name, by_saved_name))
        if isinstance(self._part, ModulePart | PlainPart):
            for name in set(by_saved_name) - self._used:
                self._elsewhere(name, by_saved_name[name])
        if self._mapping is None and isinstance(self._part, PlainPart):
            self._plain_missing(tree)
        if not (self._mapping is not None and isinstance(self._part, PlainPart)):
            self._targets._takes.append((self._part, tree))

    def _plain_missing(self, tree: Any) -> None:
        """Values of the outermost dict that were not saved. What is deeper is replaced as a whole, and
        tensors are told one by one."""
        held = self._part.tree()
        if not isinstance(held, dict) or not isinstance(tree, dict):
            return
        for key in held.keys() - tree.keys():
            name = names.join((*self._root, str(key)))
            if not any(live == name or live.startswith(f"{name}/") for live in self._live):
                self._targets.missing.append(name)

    def _by_saved_name(self) -> dict[str, Tensor]:
        if self._mapping is None:
            return self._live
        look = self._mapping.get if isinstance(self._mapping, Mapping) else self._mapping
        found: dict[str, Tensor] = {}
        for name, tensor in self._live.items():
            asked = look(name)
            if asked is None and isinstance(self._mapping, Mapping):
                asked = name
            if asked is not None:
                found[asked] = tensor
        return found

    def _elsewhere(self, name: str, tensor: Tensor) -> None:
        """A name that this part's tree does not have: of another part by a mapping, or missing."""
        if name in self._manifest.tensors:
            self._read(name, tensor, live=True)
        else:
            self._targets.missing.append(name)

    def _target(self, name: str, live: Mapping[str, Tensor]) -> Tensor | None:
        self._used.add(name)
        entry = self._manifest.tensors[name]
        tensor = live.get(name)
        if tensor is None:
            if isinstance(self._part, ModulePart) or (
                self._mapping is not None and isinstance(self._part, PlainPart)
            ):
                self._targets.unexpected.append(name)
                return None
            tensor = self._new(name, dtypes.to_torch(entry.dtype), entry.shape)
        return self._read(name, tensor, live=name in live)

    def _new(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        path = tuple(int(word) if word.isdecimal() else word for word in names.split(name)[len(self._root) :])
        made = self._part.blank(path, dtype, shape)
        return torch.empty(shape, dtype=dtype) if made is None else made

    def _read(self, name: str, tensor: Tensor, *, live: bool) -> Tensor:
        entry = self._manifest.tensors[name]
        box = boxed(tensor, name, self._world, private=self._private)
        if box.shape != entry.shape or box.dtype != entry.dtype:
            raise StateError(
                f"{name} is {box.dtype}{list(box.shape)} here and {entry.dtype}{list(entry.shape)} in the "
                "checkpoint: build the state as it was saved, or leave it out by a mapping"
            )
        self._targets.boxes.setdefault(name, []).append(box)
        if live and box.tensor.numel():
            self._targets.live[box.tensor.data_ptr()] = name
        return tensor
