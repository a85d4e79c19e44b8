"""What each keeper of a run says of itself in every round: all hear the same, and conclude the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import DamagedError, ProtocolError
from ..values import bounded_json
from . import bounded, limits
from .generation import Lane

STANDING_BYTES_MAX = 256 << 10
_PROTOCOL = bounded.whole(limits.PROTOCOL, limits.PROTOCOL)
# What is older is old, and to say more is of no use: so the words of most rounds are those of the one before.
AGE_MS_MAX, AGE_MS_STEP = 2000, 500


@dataclass(frozen=True, slots=True)
class Held:
    """The newest snapshot of a trainer. `attached`: the trainer is there; else it is kept for whoever comes.
    `age_ms`: since it is complete here, in AGE_MS_STEP, AGE_MS_MAX at most."""

    trainer: str = bounded.name()
    step: int = bounded.taken()
    bytes: int = bounded.byte_count()
    table_bytes: int = bounded.whole(0, limits.TABLE_BYTES_MAX)
    crc32: int = bounded.whole(0, 0xFFFFFFFF)
    attached: bool = bounded.flag()
    age_ms: int = bounded.whole(0, 1 << 53)

    @property
    def lane(self) -> Lane:
        return Lane(self.trainer, self.step, self.bytes, self.table_bytes, self.crc32)


@dataclass(frozen=True, slots=True)
class Word:
    """A name, alone in a list."""

    name: str = bounded.name()


@dataclass(frozen=True, slots=True)
class Standing:
    """wants    trainers that are here and ask for what was lost
    hopeless    trainers whose snapshot in generation `known` could not be brought back: its bytes are wrong,
                or there is no room
    freed       trainers that nobody wants anything of
    known       the newest generation that it has heard of
    intact      the one whose share of data and parities is whole here; 0: none
    doubts      what was brought here has wrong bytes: all look at what they gave
    protocol    of what keepers do in a round: who does something else is told, not waited for
    """

    keeper: str = bounded.name()
    domain: str = bounded.name()
    parity: int = bounded.whole(0, 255)
    held: tuple[Held, ...] = bounded.listed(Held, limits.TRAINERS_MAX)
    wants: tuple[Word, ...] = bounded.listed(Word, limits.TRAINERS_MAX)
    hopeless: tuple[Word, ...] = bounded.listed(Word, limits.TRAINERS_MAX)
    freed: tuple[Word, ...] = bounded.listed(Word, limits.TRAINERS_MAX)
    known: int = bounded.whole(0, 1 << 53)
    intact: int = bounded.whole(0, 1 << 53)
    doubts: bool = bounded.flag()
    protocol: int = field(default=limits.PROTOCOL, metadata=_PROTOCOL.metadata)

    def encode(self) -> bytes:
        value: dict[str, bounded_json.Json] = {name: getattr(self, name) for name in self.__slots__}
        for name in ("held", "wants", "hopeless", "freed"):  # asdict() takes ten times as long
            value[name] = [{key: getattr(one, key) for key in one.__slots__} for one in getattr(self, name)]
        return bounded_json.dumps(value)


def decode(data: bytes) -> Standing:
    """From anybody's bytes. Raises ProtocolError."""
    try:
        value = bounded_json.loads(data, what="a keeper's words", bytes_max=STANDING_BYTES_MAX, depth_max=5)
    except DamagedError as error:
        raise ProtocolError(str(error)) from None
    found: Standing = bounded.read(Standing, value)
    return found
