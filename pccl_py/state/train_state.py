"""A training state: parts by name, taken apart into named tensors and plain values, and put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import StateError
from ..values import names, tagged
from .boxed import Boxed, World, boxed, local_of
from .fingerprint import Fingerprint
from .look import Look
from .objects import Place, places_of
from .owners import NOBODY, Written, extent, owners_of
from .parts import AnyPart, ModulePart, OptimizerPart, RandomPart, part_of

# Of each rank its own: saved for every rank, given back to the same one.
PRIVATE = frozenset({"data", "rng"})


@dataclass(frozen=True, slots=True)
class Taken:
    """`boxes` by name, with the owner (an optimizer's id) of those that one optimizer alone writes.

    shared     plain values of the parts that all ranks have alike, by part
    private    those of this rank's own

    objects    where the objects of the tensors are, addresses and bytes: the next walk looks at them

    `boxes` and `owners` are the same objects as long as nothing of them has changed; nobody changes those.
    """

    boxes: Mapping[str, Boxed]
    owners: Mapping[str, int]
    shared: dict[str, Any] = field(default_factory=dict)
    private: dict[str, Any] = field(default_factory=dict)
    objects: Sequence[Place] = ()

    def at_once(self) -> Taken:
        """The same, as if anybody might write all of it."""
        return replace(self, owners={})


class TrainState:
    """`TrainState(model=model, inner=optimizer, scheduler=scheduler, data=sampler)`: what a run has to keep.

    A part is a module, an optimizer, a dict or list of tensors and plain values, or anything with
    state_dict() and load_state_dict(). Names are the caller's, these have a meaning:

    model, inner, outer, scheduler   as everybody calls them
    data        the position in the data: of each rank its own
    rng         True (the default): the random number generators of this process, of each rank its own

    private     names of more parts of which each rank has its own; all others are the same on all ranks,
                whole or as DTensors of which each rank holds its shard.
    frozen      names of modules whose parameters without gradients nobody writes, such as the weights below
                a LoRA: they are copied in the background, too. Without it they are copied in the call, for
                an average of weights is frozen as well, and written by hand.
    """

    def __init__(
        self, *, rng: bool = True, private: Iterable[str] = (), frozen: Iterable[str] = (), **parts: Any
    ) -> None:
        self._parts: dict[str, AnyPart] = {}
        for name, value in parts.items():
            _check_name(name)
            if value is not None:
                self._parts[name] = part_of(name, value)
        if rng and "rng" not in self._parts:
            self._parts["rng"] = RandomPart()
        self._private = PRIVATE | frozenset(private)
        self._frozen = frozenset(frozen)
        self._walked: dict[tuple[str, ...], _Walked] = {}
        self._boxes: dict[str, Boxed] = {}  # of all that was walked
        self._objects: list[Place] = []
        self._owners: dict[str, int] | None = None  # and the parameters, by id, for which that holds
        self._stepped: list[int] = []
        if unknown := set(private) - set(self._parts):
            raise StateError(f"private names {sorted(unknown)}, which are no parts of the state")
        modules = {name for name, part in self._parts.items() if isinstance(part, ModulePart)}
        if strangers := self._frozen - modules:
            raise StateError(f"frozen names {sorted(strangers)}, which are no modules of the state")

    @property
    def parts(self) -> Mapping[str, AnyPart]:
        """By name, in order of their addition."""
        return dict(self._parts)

    def joined(self, **parts: Any) -> TrainState:
        """The same parts and these, in a new state."""
        rng = "rng" in self._parts
        both = {name: part for name, part in self._parts.items() if name != "rng"} | parts
        return TrainState(rng=rng, private=self._private - PRIVATE, frozen=self._frozen, **both)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Of the parts that are optimizers; what they alone write is copied lazily."""
        return [part.optimizer for part in self._parts.values() if isinstance(part, OptimizerPart)]

    def is_private(self, name: str) -> bool:
        """Whether that part returns to the same rank only, as random states do."""
        return name in self._private

    def root(self, name: str, rank: int) -> str:
        """The first word of the names of this part's tensors."""
        return f"@{rank}" if self.is_private(name) else name

    def take(self, world: World) -> Taken:
        """Everything, without copying a tensor. Raises StateError, with the path of what cannot be saved."""
        before, self._walked = self._walked, {}
        shared: dict[str, Any] = {}
        private: dict[str, Any] = {}
        for name, part in self._parts.items():
            root = (f"@{world.rank}", name) if self.is_private(name) else (name,)
            found = _walked(part, root, world, before)
            self._walked |= found
            words = {path[len(root) :]: walked.words for path, walked in found.items()}
            whole = words.get((), {key[0]: half for key, half in words.items() if key})
            (private if self.is_private(name) else shared)[name] = whole
        unchanged = self._walked.keys() == before.keys() and all(
            walked.boxes is before[path].boxes for path, walked in self._walked.items()
        )
        if not unchanged:
            self._boxes, self._objects = {}, []
            for walked in self._walked.values():
                self._boxes |= walked.boxes
                self._objects += walked.objects
        return Taken(self._boxes, self._owners_now(unchanged), shared, private, self._objects)

    def _owners_now(self, unchanged: bool) -> dict[str, int]:
        stepped = [
            id(parameter)
            for optimizer in self.optimizers()
            for group in optimizer.param_groups
            for parameter in group["params"]
        ] + [id(parameter) for parameter in self._frozen_parameters()]
        if not unchanged or self._owners is None or self._stepped != stepped:
            self._owners, self._stepped = self._find_owners(self._boxes), stepped
        return self._owners

    def _frozen_parameters(self) -> list[Tensor]:
        modules = [self._parts[name].module for name in sorted(self._frozen)]  # type: ignore[union-attr]
        return [one for module in modules for one in module.parameters() if not one.requires_grad]

    def _find_owners(self, boxes: Mapping[str, Boxed]) -> dict[str, int]:
        written = [
            Written(*extent(local_of(tensor)), id(part.optimizer))
            for part in self._parts.values()
            if isinstance(part, OptimizerPart)
            for tensor in part.written()
        ]
        written += [Written(*extent(local_of(tensor)), NOBODY) for tensor in self._frozen_parameters()]
        return owners_of({name: extent(box.tensor) for name, box in boxes.items()}, written)


@dataclass(frozen=True, slots=True)
class _Walked:
    """One part, or of an optimizer one half, as it was taken apart for the save before. `fingerprint`: where
    there is no look."""

    look: Look | None
    fingerprint: Fingerprint | None
    world: World
    boxes: dict[str, Boxed]
    objects: list[Place]
    words: Any


def _walked(
    part: AnyPart, root: tuple[str, ...], world: World, before: Mapping[tuple[str, ...], _Walked]
) -> dict[tuple[str, ...], _Walked]:
    """By path, each half of the part: as it was `before` where nothing of it has changed."""
    tree: Any = None

    def half_of(half: str) -> Any:
        nonlocal tree
        tree = part.tree() if tree is None else tree
        return tree[half] if half else tree

    found = {}
    for half in part.halves():
        path = (*root, half) if half else root
        walked = before.get(path)
        if walked is not None and walked.world == world:
            if walked.look is not None and walked.look.alike():
                found[path] = walked
                continue
            if walked.fingerprint is not None and walked.fingerprint.matches(half_of(half)):
                found[path] = walked
                continue
        found[path] = _walk(half_of(half), path, world, part.look(half), walked)
    return found


def _check_name(name: str) -> None:
    if not name or name.startswith("@"):
        raise StateError(f"{name!r} is no name for a part: a word that does not begin with @, please")
    names.join((name,))


def _walk(
    tree: Any, path: tuple[str, ...], world: World, look: Look | None, before: _Walked | None
) -> _Walked:
    private = path[0].startswith("@")
    boxes: dict[str, Boxed] = {}
    objects: list[Place] = []

    def note(where: tuple[str | int, ...], value: Any) -> str | None:
        if not isinstance(value, Tensor):
            return None  # a numpy array stays among the plain values
        name = names.join(where)
        if name in boxes:
            raise StateError(f"two tensors have the name {name}: a key 1 and a key '1'? Rename one")
        boxes[name] = boxed(value, name, world, private=private)
        objects.extend(places_of(value))
        return name

    words = tagged.encode(tree, path=path, tensor=note)
    fingerprint = Fingerprint(tree) if look is None else None
    if before is not None and list(boxes) == list(before.boxes):
        if not boxes or _same_tensors(fingerprint, before):
            boxes, objects = before.boxes, before.objects
    return _Walked(look, fingerprint, world, boxes, objects, words)


def _same_tensors(now: Fingerprint | None, before: _Walked) -> bool:
    """The same objects, laid out alike: only plain values beside them have changed. The same memory does not
    do: writes to another tensor are not counted with those of the one that was walked."""
    return now is not None and before.fingerprint is not None and now.has_tensors_of(before.fingerprint)


def as_state(state: Any) -> TrainState:
    """A TrainState, or a dict of parts by name as one (without random number generators)."""
    if isinstance(state, TrainState):
        return state
    if isinstance(state, dict) and all(isinstance(name, str) for name in state):
        plain = {name: value for name, value in state.items() if not _is_part(value)}
        parts = {name: value for name, value in state.items() if _is_part(value)}
        return _of_dict(state, plain, parts)
    raise StateError(f"{type(state).__qualname__} is no state: pass a TrainState or a dict of parts by name")


def _is_part(value: Any) -> bool:
    return isinstance(value, dict | list) or callable(getattr(value, "state_dict", None))


def _of_dict(state: dict[str, Any], plain: dict[str, Any], parts: dict[str, Any]) -> TrainState:
    if plain and not parts:  # {"weights": tensor, "step": 3}
        return TrainState(rng=False, state=state)
    if plain:
        raise StateError(
            f"{sorted(plain)} are no parts: put loose tensors and numbers of a state into a dict of their own"
        )
    return TrainState(rng=False, **parts)
