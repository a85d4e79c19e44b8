"""THE protocol between trainers and a keeper: every message as a list of bounded fields.

A message is one packet: a JSON object with its fields and its name. `decode` takes any bytes. In brackets the
descriptors that come with it; the memory of an Attach is what a keeper that died held.

    trainer                     keeper
    Attach    [memory]    ->    Attached  [control page, buffers, tables]
    Reserve               ->    Reserved  [buffer]                           when it is populated
    Begin                 ->                                                 no answer: what follows is one
    Complete  [table]     ->    Completed
    Forget                ->    Forgotten
    Detach                ->    Detached
    AskSummary            ->    Summary                                      anybody
    Free                  ->    Freed                                        anybody; then the keeper ends
                                Refused                                      instead of any answer
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NoReturn

from ..errors import DamagedError, ProtocolError
from ..values import bounded_json
from . import limits

Check = Callable[[object], bool]
SLOTS = 2


def _field(check: Check, **more: Any) -> Any:
    return field(metadata={"check": check}, **more)


def _whole(least: int, most: int) -> Any:
    return _field(lambda value: type(value) is int and least <= value <= most)


def _bytes() -> Any:
    return _whole(0, limits.BUFFER_BYTES_MAX)


def _step() -> Any:
    return _whole(-1, limits.STEP_MAX)  # -1: none


def _taken() -> Any:
    return _whole(0, limits.STEP_MAX)


def _slot() -> Any:
    return _whole(0, SLOTS - 1)


def _flag() -> Any:
    return _field(lambda value: type(value) is bool)


def _seconds() -> Any:
    return _field(lambda value: type(value) in (int, float) and 0 <= value <= limits.ORPHAN_S_MAX)  # type: ignore[operator]


def is_name(value: object) -> bool:
    """Of a run, a trainer, a keeper: printable, so that it can be shown, and not too long."""
    return isinstance(value, str) and 0 < len(value) <= limits.NAME_CHARS_MAX and value.isprintable()


def _name() -> Any:
    return _field(is_name)


def _word(*known: str) -> Any:
    return _field(lambda value: value in known)


def _text() -> Any:
    return _field(lambda value: isinstance(value, str) and len(value) <= limits.TEXT_CHARS_MAX)


def _list(of: type, most: int) -> Any:
    return field(metadata={"of": of, "most": most})


def _optional(of: type) -> Any:
    return field(metadata={"of": of, "optional": True})


STATES = ("empty", "writing", "complete")


@dataclass(frozen=True, slots=True)
class Slot:
    """One of a trainer's two buffers. `capacity` 0: it has no memory. `bytes`, `crc32` of the table: of a
    complete snapshot, as its trainer said."""

    state: str = _word(*STATES)
    capacity: int = _bytes()
    step: int = _step()
    bytes: int = _bytes()
    table_bytes: int = _whole(0, limits.TABLE_BYTES_MAX)
    crc32: int = _whole(0, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Attach:
    """`bytes`: that each buffer will need, 0: not known. `step` and the others: of the snapshot that is
    handed over with its buffer, then its table; -1: none."""

    trainer: str = _name()
    bytes: int = _bytes()
    orphan_s: float = _seconds()
    handed: Slot | None = _optional(Slot)


@dataclass(frozen=True, slots=True)
class Attached:
    """`committed`: the slot of the newest complete snapshot, -1: none. With the control page, then each
    slot's buffer if it has one, then the table of each that is complete."""

    committed: int = _whole(-1, SLOTS - 1)
    slots: tuple[Slot, ...] = _list(Slot, SLOTS)


@dataclass(frozen=True, slots=True)
class Reserve:
    slot: int = _slot()
    bytes: int = _bytes()


@dataclass(frozen=True, slots=True)
class Reserved:
    slot: int = _slot()
    capacity: int = _bytes()


@dataclass(frozen=True, slots=True)
class Begin:
    slot: int = _slot()
    step: int = _taken()


@dataclass(frozen=True, slots=True)
class Complete:
    """`bytes` of the buffer; the table is handed over, sealed, with its checksum."""

    slot: int = _slot()
    step: int = _taken()
    bytes: int = _bytes()
    crc32: int = _whole(0, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Completed:
    slot: int = _slot()
    step: int = _step()


@dataclass(frozen=True, slots=True)
class Forget:
    """Of snapshots after `step`."""

    step: int = _step()


@dataclass(frozen=True, slots=True)
class Forgotten:
    committed: int = _whole(-1, SLOTS - 1)


@dataclass(frozen=True, slots=True)
class Detach:
    """`free`: nobody will want these snapshots."""

    free: bool = _flag()


@dataclass(frozen=True, slots=True)
class Detached:
    pass


@dataclass(frozen=True, slots=True)
class AskSummary:
    pass


@dataclass(frozen=True, slots=True)
class Trainer:
    """What a keeper holds of one trainer. `pid` 0: it is not attached, for `gone_s` seconds now."""

    trainer: str = _name()
    pid: int = _whole(0, 1 << 40)
    gone_s: float = _field(lambda value: type(value) in (int, float) and 0 <= value < math.inf)  # type: ignore[operator]
    step: int = _step()
    age_s: float = _field(lambda value: type(value) in (int, float) and 0 <= value < math.inf)  # type: ignore[operator]
    bytes: int = _bytes()
    memory: int = _bytes()


@dataclass(frozen=True, slots=True)
class Summary:
    run: str = _name()
    keeper: str = _name()
    pid: int = _whole(0, 1 << 40)
    trainers: tuple[Trainer, ...] = _list(Trainer, limits.TRAINERS_MAX)


@dataclass(frozen=True, slots=True)
class Free:
    """`force`: also while trainers are attached."""

    force: bool = _flag()


@dataclass(frozen=True, slots=True)
class Freed:
    bytes: int = _bytes()


@dataclass(frozen=True, slots=True)
class Refused:
    """`memory`: there is not enough: `needed`, `available`. `older`: there is a newer step. `busy`: the
    trainer is attached already. `wrong`: the message does not fit what the keeper holds."""

    code: str = _word("memory", "older", "busy", "wrong")
    text: str = _text()
    needed: int = _bytes()
    available: int = _bytes()


Message = (
    Attach | Attached | Reserve | Reserved | Begin | Complete | Completed | Forget | Forgotten | Detach
    | Detached | AskSummary | Summary | Free | Freed | Refused
)  # fmt: skip
_BY_NAME: dict[str, type[Any]] = {kind.__name__: kind for kind in Message.__args__}


def encode(message: Message) -> bytes:
    """Raises ProtocolError for what no receiver would take."""
    data = bounded_json.dumps({"is": type(message).__name__, **asdict(message)})
    decode(data)
    return data


def decode(data: bytes) -> Message:
    """From anybody's bytes. Raises ProtocolError."""
    try:
        value = bounded_json.loads(data, what="a message", bytes_max=limits.MESSAGE_BYTES_MAX, depth_max=5)
    except DamagedError as error:
        raise ProtocolError(str(error)) from None
    if not isinstance(value, dict) or not isinstance(value.get("is"), str):
        _refuse("no object with a name")
    kind = _BY_NAME.get(value.pop("is"))
    if kind is None:
        _refuse("it has a name that no message has")
    message: Message = _read(kind, value)
    return message


def _read(kind: type[Any], value: object) -> Any:
    known = fields(kind)
    if not isinstance(value, dict) or value.keys() != {one.name for one in known}:
        _refuse(f"{kind.__name__} has other fields")
    return kind(**{one.name: _value(kind, one, value[one.name]) for one in known})


def _value(kind: type[Any], one: Any, value: object) -> Any:
    about = one.metadata
    if "check" in about:
        if not about["check"](value):
            _refuse(f"{kind.__name__}.{one.name} is out of bounds")
        return value
    if "optional" in about:
        return None if value is None else _read(about["of"], value)
    if not isinstance(value, list) or len(value) > about["most"]:
        _refuse(f"{kind.__name__}.{one.name} is no list, or too long")
    return tuple(_read(about["of"], item) for item in value)


def _refuse(why: str) -> NoReturn:
    raise ProtocolError(f"a message between trainer and keeper: {why}; run one release of this library")
