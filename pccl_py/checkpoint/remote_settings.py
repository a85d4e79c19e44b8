"""What a Checkpointer is told about its remote, checked."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from .upload import Compression


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """See Checkpointer; `bandwidth` in bytes per second of this rank."""

    every: int | None = None
    keep: int | None = None
    keep_every: int | None = None
    bandwidth: float | None = None
    compression: Compression | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for name in ("every", "keep", "keep_every"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UsageError(f"remote_{name}={value!r}: a whole number, at least 1")
        if self.bandwidth is not None and not self.bandwidth > 0:
            raise UsageError(f"remote_bandwidth={self.bandwidth!r}: bytes per second, more than 0")
        if self.compression not in (None, "zstd"):
            raise UsageError(f"compression={self.compression!r}: None or 'zstd'")

    def wants(self, step: int) -> bool:
        return self.every is None or step % self.every == 0

    def stays(self, step: int) -> bool:
        return self.keep_every is not None and step % self.keep_every == 0
