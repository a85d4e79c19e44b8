"""JSON from strangers: refused by size and depth before it is parsed, then by what only Python accepts."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import numpy as np

from ..errors import DamagedError
from .limits import JSON_DEPTH_MAX

Json = None | bool | int | float | str | list[Any] | dict[str, Any]

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NO_BRACKET = re.compile(rb"[^\[\]{}]++")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def dumps(value: Json) -> bytes:
    """UTF-8, as short as JSON can be, keys in their order. Raises ValueError for NaN and infinities."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def loads(data: bytes, *, what: str, bytes_max: int, depth_max: int = JSON_DEPTH_MAX) -> Json:
    """The value; no object in it has a key twice, no number is NaN or infinite, every string is Unicode.

    Raises DamagedError that begins with `what`.
    """

    def refuse(why: str) -> NoReturn:
        raise DamagedError(f"{what}: {why}")

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        if len(found) != len(pairs):
            refuse("an object has the same key twice")
        return found

    def finite(text: str) -> float:
        number = float(text)
        return number if math.isfinite(number) else refuse("a number is too large for a double")

    if len(data) > bytes_max:
        refuse(f"{len(data)} bytes of JSON where at most {bytes_max} are read")
    if depth(data) > depth_max:
        refuse(f"JSON nested deeper than {depth_max}")
    try:
        text = data.decode()
        value: Json = json.loads(
            text,
            object_pairs_hook=unique,
            parse_float=finite,
            parse_constant=lambda name: refuse(f"{name} is no JSON"),
        )
    except (ValueError, RecursionError) as error:
        refuse(f"no JSON in UTF-8 ({error})")
    if _SURROGATE.search(text) and _has_lone_surrogate(value):
        refuse("a string has half of a surrogate pair")
    return value


def depth(data: bytes) -> int:
    """The deepest nesting of brackets outside of strings; of what is no JSON, at least that of its beginning,
    as far as a parser gets."""
    brackets = np.frombuffer(_NO_BRACKET.sub(b"", _STRING.sub(b"", data)), np.uint8)
    opens = (brackets == ord("[")) | (brackets == ord("{"))
    return int(np.cumsum(np.where(opens, 1, -1).astype(np.int8), dtype=np.int32).max(initial=0))


def _has_lone_surrogate(value: Json) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, list):
        return any(_has_lone_surrogate(item) for item in value)
    if isinstance(value, dict):
        return any(_has_lone_surrogate(key) or _has_lone_surrogate(item) for key, item in value.items())
    return False
