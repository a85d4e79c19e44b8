"""How far a command is, as one line on a terminal."""

from __future__ import annotations

import sys


class Progress:
    """One line on a terminal's stderr, rewritten; nothing elsewhere."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._shown = -1
        self._terminal = sys.stderr.isatty()

    def add(self, more: int) -> None:
        self._done += more
        percent = min(100 * self._done // max(self._total, 1), 100)
        if self._terminal and percent != self._shown:
            self._shown = percent
            bar = "#" * (percent // 4)
            end = "\n" if percent == 100 else ""
            print(f"\r{self._what} [{bar:25}] {percent:3d} %", end=end, file=sys.stderr, flush=True)
