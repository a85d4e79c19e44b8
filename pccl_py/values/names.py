"""Names of tensors: the path of a value in the state, as one string.

Parts are joined by "/"; in a part "~" is written "~0" and "/" is written "~1". A list index or an integer key
is its decimal text: the object tree knows which it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..errors import StateError
from .limits import NAME_BYTES_MAX

RESERVED = "__metadata__"  # of safetensors: its header has this key for other things
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PART_MARK = "~p"  # no escape of a path, so no path has it


def fault(name: str) -> str | None:
    """What is wrong with a name, or None."""
    if not name:
        return "it is empty"
    if len(name) > NAME_BYTES_MAX:
        return f"it is longer than {NAME_BYTES_MAX} bytes"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it has half of a surrogate pair, which UTF-8 cannot express"
    if size > NAME_BYTES_MAX:
        return f"it is longer than {NAME_BYTES_MAX} bytes"
    if name == RESERVED:
        return "safetensors keeps it for itself"
    if found := _CONTROL.search(name):
        return f"it has the control character U+{ord(found[0]):04X}"
    return None


def join(path: Iterable[str | int]) -> str:
    """The name of the value at `path`: ("model", "a/b", 3) is "model/a~1b/3".

    Raises StateError for a name that cannot be saved.
    """
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in path]
    name = "/".join(parts)
    if wrong := fault(name):
        raise StateError(
            f"no tensor can be saved under {shown(name)}: {wrong}. Rename this key of the state."
        )
    return name


def split(name: str) -> tuple[str, ...]:
    """The parts of a name, unescaped; integers come back as text. Raises StateError for a bad escape."""
    if wrong := fault(name):
        raise StateError(f"{shown(name)} is no name of a tensor: {wrong}.")
    if re.search("~(?![01])", name):
        raise StateError(f"{shown(name)} is no name of a tensor: only ~0 and ~1 are escapes.")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in name.split("/"))


def in_shard(name: str, index: int, of: int) -> str:
    """The name of one of a tensor's pieces in a shard file that has `of` of them: the tensor's own where it
    is alone."""
    return name if of == 1 else f"{name}{_PART_MARK}{index}"


def shown(name: str, limit: int = 200) -> str:
    """For messages and tables: quoted, nothing a terminal would act on, not too long."""
    text = name if len(name) <= limit else f"{name[: limit - 3]}..."
    return "'" + "".join(c if c.isprintable() and c != "'" else ascii(c)[1:-1] for c in text) + "'"


def path_shown(path: Sequence[object]) -> str:
    """Where in a state: `state['model'][3]`."""
    return "state" + "".join(f"[{part!r}]" if type(part) is int else f"[{shown(str(part))}]" for part in path)
