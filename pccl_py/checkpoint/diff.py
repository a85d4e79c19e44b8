"""What two steps have in common, and what not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..values import bounded_json, names
from ..values.bounded_json import Json
from .manifest import Manifest, Tensor
from .manifest_body import tensors_bytes
from .plain_reader import read_piece, read_tensor


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is "tensor" or "object"; `name` is a tensor's name, or the path of a value; `what` is
    "removed" (only the first step has it), "added", "dtype", "shape" or "values"."""

    kind: str
    name: str
    what: str
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    changes: tuple[Change, ...]
    same_tensors: int

    @property
    def same(self) -> bool:
        return not self.changes


def compare(
    path_a: Path,
    a: Manifest,
    path_b: Path,
    b: Manifest,
    progress: Callable[[int], None] | None = None,
) -> Difference:
    """The steps in two folders. Values of tensors that are cut alike are compared by their checksums;
    others are read, one piece at a time.

    Raises as `plain_reader` does.
    """
    changes: list[Change] = []
    same = 0
    for name in sorted(a.tensors.keys() | b.tensors.keys()):
        change = _tensor(name, path_a, a, path_b, b)
        if change is None:
            same += 1
        else:
            changes.append(change)
        if progress is not None:
            progress(tensors_bytes({name: a.tensors.get(name) or b.tensors[name]}))
    changes += _values("objects", dict(a.objects), dict(b.objects))
    private_a: Json = {str(rank): dict(parts) for rank, parts in a.private.items()}
    changes += _values("private", private_a, {str(rank): dict(parts) for rank, parts in b.private.items()})
    return Difference(tuple(changes), same)


def _tensor(name: str, path_a: Path, a: Manifest, path_b: Path, b: Manifest) -> Change | None:
    before, after = a.tensors.get(name), b.tensors.get(name)
    if before is None or after is None:
        return Change("tensor", name, "added" if before is None else "removed", _brief(before), _brief(after))
    if before.dtype != after.dtype:
        return Change("tensor", name, "dtype", _brief(before), _brief(after))
    if before.shape != after.shape:
        return Change("tensor", name, "shape", _brief(before), _brief(after))
    cut_a = {piece.box: piece.crc32 for piece in before.pieces}
    cut_b = {piece.box: piece.crc32 for piece in after.pieces}
    if cut_a.keys() == cut_b.keys():
        return None if cut_a == cut_b else Change("tensor", name, "values")
    for piece in before.pieces:
        if read_piece(path_a, a, before, piece) != read_tensor(path_b, b, name, piece.box):
            return Change("tensor", name, "values")
    return None


def _brief(tensor: Tensor | None) -> str:
    return "" if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"


def _values(path: str, a: Json, b: Json) -> Iterator[Change]:
    a, b = _by_key(a), _by_key(b)
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            inner = f"{path}/{key}"
            if key not in a or key not in b:
                what = "added" if key not in a else "removed"
                before, after = (_short(side[key]) if key in side else "" for side in (a, b))
                yield Change("object", inner, what, before, after)
            else:
                yield from _values(inner, a[key], b[key])
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from _values(f"{path}/{index}", *pair)
    elif bounded_json.dumps(a) != bounded_json.dumps(b):  # 1, 1.0 and true are equal, but not the same
        yield Change("object", path, "values", _short(a), _short(b))


def _by_key(value: Json) -> Json:
    """A dict whose keys are not all texts, by its keys as JSON."""
    pairs = value.get("$dict") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return value
    return {bounded_json.dumps(key).decode(): item for key, item in pairs}


def _short(value: Json) -> str:
    return names.shown(bounded_json.dumps(value).decode(), 60)[1:-1]
