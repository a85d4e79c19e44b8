"""What a Checkpointer is told, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError

OnBusy = Literal["wait", "skip", "error"]


@dataclass(frozen=True, slots=True)
class Settings:
    """See Checkpointer."""

    every: int | None
    keep: int
    keep_every: int | None
    on_busy: OnBusy
    pool_bytes: int | None
    copy_threads: int
    write_threads: int
    in_flight: int
    timeout_s: float
    lazy: bool

    def __post_init__(self) -> None:
        _at_least("every", self.every, 1)
        _at_least("keep", self.keep, 1)
        _at_least("keep_every", self.keep_every, 1)
        _at_least("pool_bytes", self.pool_bytes, 32 << 20)
        _at_least("in_flight", self.in_flight, 1)
        for name in ("copy_threads", "write_threads"):
            if not 1 <= getattr(self, name) <= 4:
                raise UsageError(f"{name}={getattr(self, name)!r}: 1 to 4")
        if self.on_busy not in ("wait", "skip", "error"):
            raise UsageError(f"on_busy={self.on_busy!r}: 'wait', 'skip' or 'error'")
        if not self.timeout_s > 0:
            raise UsageError(f"timeout_s={self.timeout_s!r}: seconds, more than 0")


def _at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise UsageError(f"{name}={value!r}: a whole number, at least {least}")
