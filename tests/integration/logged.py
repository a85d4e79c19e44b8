"""Lines of the core in Python's log: they come on a thread of their own, a moment after what they tell of."""

from __future__ import annotations

import time

import pytest


def logged(caplog: pytest.LogCaptureFixture, words: str, count: int = 1, within: float = 10) -> list[str]:
    """The lines that have these words in them, as soon as there are `count`, or what is there in the end."""
    deadline = time.monotonic() + within
    while True:
        lines = [text for record in caplog.records if words in (text := record.getMessage())]
        if len(lines) >= count or time.monotonic() > deadline:
            return lines
        time.sleep(0.01)
