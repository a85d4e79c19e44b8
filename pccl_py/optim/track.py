"""What a peer has done for each fragment since it last took that from the others."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from .weights import Progress


@dataclass
class Track:
    """whole: it began at the shared parameters when the others did; else its delta has weight 0."""

    steps: int = 0
    tokens: int = 0
    windows: int = 0
    whole: bool = True
    since: float = field(default_factory=time.monotonic)

    def begin(self) -> None:
        self.steps = self.tokens = self.windows = 0
        self.since = time.monotonic()

    def progress(self) -> Progress:
        return Progress(self.steps, self.tokens, time.monotonic() - self.since, self.windows + 1)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "tokens": self.tokens, "windows": self.windows, "whole": self.whole}

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Track:
        steps, tokens, windows = (int(saved[key]) for key in ("steps", "tokens", "windows"))
        return cls(steps, tokens, windows, bool(saved["whole"]))
