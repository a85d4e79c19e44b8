"""Fields of what comes from elsewhere, each with its bounds, and the one reader of all of them.

A dataclass whose fields are made here is read from JSON by `read`: other fields, or a value out of bounds,
are a ProtocolError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any, NoReturn

from ..errors import ProtocolError
from . import limits

Check = Callable[[object], bool]


def checked(check: Check) -> Any:
    return field(metadata={"check": check})


def whole(least: int, most: int) -> Any:
    return checked(lambda value: type(value) is int and least <= value <= most)


def byte_count() -> Any:
    return whole(0, limits.BUFFER_BYTES_MAX)


def step() -> Any:
    return whole(-1, limits.STEP_MAX)  # -1: none


def taken() -> Any:
    return whole(0, limits.STEP_MAX)


def flag() -> Any:
    return checked(lambda value: type(value) is bool)


def seconds() -> Any:
    return checked(lambda value: type(value) in (int, float) and 0 <= value <= limits.ORPHAN_S_MAX)  # type: ignore[operator]


def is_name(value: object) -> bool:
    """Of a run, a trainer, a keeper: printable, so that it can be shown, and not too long."""
    return isinstance(value, str) and 0 < len(value) <= limits.NAME_CHARS_MAX and value.isprintable()


def name() -> Any:
    return checked(is_name)


def word(*known: str) -> Any:
    return checked(lambda value: value in known)


def text() -> Any:
    return checked(lambda value: isinstance(value, str) and len(value) <= limits.TEXT_CHARS_MAX)


def listed(of: type, most: int) -> Any:
    return field(metadata={"of": of, "most": most})


def optional(of: type) -> Any:
    return field(metadata={"of": of, "optional": True})


def read(kind: type[Any], value: object) -> Any:
    known = fields(kind)
    if not isinstance(value, dict) or value.keys() != {one.name for one in known}:
        refuse(f"{kind.__name__} has other fields")
    return kind(**{one.name: _value(kind, one, value[one.name]) for one in known})


def _value(kind: type[Any], one: Any, value: object) -> Any:
    about = one.metadata
    if "check" in about:
        if not about["check"](value):
            refuse(f"{kind.__name__}.{one.name} is out of bounds")
        return value
    if "optional" in about:
        return None if value is None else read(about["of"], value)
    if not isinstance(value, list) or len(value) > about["most"]:
        refuse(f"{kind.__name__}.{one.name} is no list, or too long")
    return tuple(read(about["of"], item) for item in value)


def refuse(why: str) -> NoReturn:
    raise ProtocolError(f"a message of a trainer or a keeper: {why}; run one release of this library")
