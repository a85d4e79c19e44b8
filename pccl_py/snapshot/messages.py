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
    Protect               ->    Protecting                                   from then on coded with others
    AwaitCoded            ->    Coded                                        when it is, or time is over
    Fetch                 ->    Fetched                                      what was lost is here: reattach
    AskSummary            ->    Summary                                      anybody
    Free                  ->    Freed                                        anybody; then the keeper ends
                                Refused                                      instead of any answer
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import DamagedError, ProtocolError
from ..values import bounded_json
from . import bounded, limits

SLOTS = 2


def _slot() -> Any:
    return bounded.whole(0, SLOTS - 1)


STATES = ("empty", "writing", "complete")


@dataclass(frozen=True, slots=True)
class Slot:
    """One of a trainer's two buffers. `capacity` 0: it has no memory. `bytes`, `crc32` of the table: of a
    complete snapshot, as its trainer said."""

    state: str = bounded.word(*STATES)
    capacity: int = bounded.byte_count()
    step: int = bounded.step()
    bytes: int = bounded.byte_count()
    table_bytes: int = bounded.whole(0, limits.TABLE_BYTES_MAX)
    crc32: int = bounded.whole(0, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Attach:
    """`bytes`: that each buffer will need, 0: not known. `parities`: that others' parities will need beside
    them. `step` and the others: of the snapshot that is handed over with its buffer, then its table; -1:
    none."""

    trainer: str = bounded.name()
    bytes: int = bounded.byte_count()
    parities: int = bounded.byte_count()
    orphan_s: float = bounded.seconds()
    handed: Slot | None = bounded.optional(Slot)


@dataclass(frozen=True, slots=True)
class Attached:
    """`committed`: the slot of the newest complete snapshot, -1: none. With the control page, then each
    slot's buffer if it has one, then the table of each that is complete."""

    committed: int = bounded.whole(-1, SLOTS - 1)
    slots: tuple[Slot, ...] = bounded.listed(Slot, SLOTS)


@dataclass(frozen=True, slots=True)
class Reserve:
    slot: int = _slot()
    bytes: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Reserved:
    slot: int = _slot()
    capacity: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Begin:
    slot: int = _slot()
    step: int = bounded.taken()


@dataclass(frozen=True, slots=True)
class Complete:
    """`bytes` of the buffer; the table is handed over, sealed, with its checksum."""

    slot: int = _slot()
    step: int = bounded.taken()
    bytes: int = bounded.byte_count()
    crc32: int = bounded.whole(0, 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class Completed:
    slot: int = _slot()
    step: int = bounded.step()


@dataclass(frozen=True, slots=True)
class Forget:
    """Of snapshots after `step`. `again`: others shall bring the newest back, since what is here is damaged;
    else nobody wants them."""

    step: int = bounded.step()
    again: bool = bounded.flag()


@dataclass(frozen=True, slots=True)
class Forgotten:
    committed: int = bounded.whole(-1, SLOTS - 1)


@dataclass(frozen=True, slots=True)
class Detach:
    """`free`: nobody will want these snapshots."""

    free: bool = bounded.flag()


@dataclass(frozen=True, slots=True)
class Detached:
    pass


@dataclass(frozen=True, slots=True)
class Protect:
    """Join the run at `master` as a keeper: whatever `parity` failure domains vanish, no snapshot is lost.
    `rate`: bytes per second that coding may send at most, 0: any. Of all trainers of a keeper the same."""

    master: str = bounded.text()
    secret_file: str = bounded.text()
    encrypt: bool = bounded.flag()
    insecure: bool = bounded.flag()
    run_name: str = bounded.text()
    listen: str = bounded.text()
    advertise: str = bounded.text()
    domain: str = bounded.name()
    parity: int = bounded.whole(1, 255)
    rate: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Protecting:
    pass


@dataclass(frozen=True, slots=True)
class AwaitCoded:
    """`seconds` 0: the trainer will not wait any longer, and may write where the last one lies."""

    step: int = bounded.taken()
    seconds: float = bounded.seconds()


@dataclass(frozen=True, slots=True)
class Coded:
    """`step`: the newest that is coded, -1: none. `losses`: hosts that may be lost now. `fault`: what keeps
    this keeper from it, empty: nothing but time. `parities`: bytes of memory for those of others, this
    trainer's part where the keeper has several. `identical`: bytes of the snapshot that all keepers have, bit
    for bit, and that needed no code; `unchanged`: that are as in the one coded before."""

    step: int = bounded.step()
    losses: int = bounded.whole(0, limits.LOSSES_MAX)
    fault: str = bounded.text()
    parities: int = bounded.byte_count()
    identical: int = bounded.byte_count()
    unchanged: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Fetch:
    """`bytes`: that it will need, about, 0: unknown."""

    seconds: float = bounded.seconds()
    bytes: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Fetched:
    """-1: time is over."""

    step: int = bounded.step()


@dataclass(frozen=True, slots=True)
class AskSummary:
    pass


@dataclass(frozen=True, slots=True)
class Trainer:
    """What a keeper holds of one trainer. `pid` 0: it is not attached, for `gone_s` seconds now."""

    trainer: str = bounded.name()
    pid: int = bounded.whole(0, 1 << 40)
    gone_s: float = bounded.checked(lambda value: type(value) in (int, float) and 0 <= value < math.inf)  # type: ignore[operator]
    step: int = bounded.step()
    age_s: float = bounded.checked(lambda value: type(value) in (int, float) and 0 <= value < math.inf)  # type: ignore[operator]
    bytes: int = bounded.byte_count()
    memory: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Summary:
    run: str = bounded.name()
    keeper: str = bounded.name()
    pid: int = bounded.whole(0, 1 << 40)
    trainers: tuple[Trainer, ...] = bounded.listed(Trainer, limits.TRAINERS_MAX)


@dataclass(frozen=True, slots=True)
class Free:
    """`force`: also while trainers are attached."""

    force: bool = bounded.flag()


@dataclass(frozen=True, slots=True)
class Freed:
    bytes: int = bounded.byte_count()


@dataclass(frozen=True, slots=True)
class Refused:
    """`memory`: there is not enough: `needed`, `available`. `older`: there is a newer step. `busy`: the
    trainer is attached already. `wrong`: the message does not fit what the keeper holds. `gone`: more was
    lost than can be brought back. `none`: there never was any."""

    code: str = bounded.word("memory", "older", "busy", "wrong", "gone", "none")
    text: str = bounded.text()
    needed: int = bounded.byte_count()
    available: int = bounded.byte_count()


Message = (
    Attach | Attached | Reserve | Reserved | Begin | Complete | Completed | Forget | Forgotten | Detach
    | Detached | Protect | Protecting | AwaitCoded | Coded | Fetch | Fetched | AskSummary | Summary | Free
    | Freed | Refused
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
        bounded.refuse("no object with a name")
    kind = _BY_NAME.get(value.pop("is"))
    if kind is None:
        bounded.refuse("it has a name that no message has")
    message: Message = bounded.read(kind, value)
    return message
