"""Trying again while a remote is away: longer and longer pauses, no two processes in step."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import CheckpointError
from .remote_store import Gone

logger = logging.getLogger("pccl_py")
T = TypeVar("T")

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 15.0


class Closing(Exception):
    """The Checkpointer closes: what is under way is left as it is, the next one goes on with it."""


class Patience:
    """`heard` is told of every failure (text, whether trying again can help by itself) and, with None, of the
    first success after one. `give_up_s`: None is never. Any thread."""

    def __init__(
        self,
        closing: threading.Event,
        heard: Callable[[str | None, bool], None],
        give_up_s: float | None = None,
    ) -> None:
        self._closing, self._heard, self._give_up_s = closing, heard, give_up_s
        self._random = random.Random()
        self.doing = ""  # the call that was begun last

    def call(self, what: str, action: Callable[[], T]) -> T:
        """What `action` returns, in the end. An error of ours is not the store's, and raised at once."""
        self.doing = what
        begun = time.monotonic()
        pause = FIRST_PAUSE_S
        failed = False
        while True:
            if self._closing.is_set():
                raise Closing(what)
            try:
                result = action()
            except (CheckpointError, Closing, Gone):
                raise
            except Exception as error:  # whatever a store raises
                text = f"cannot {what}: {said(error)}"
                if self._give_up_s is not None and time.monotonic() - begun + pause > self._give_up_s:
                    raise CheckpointError(
                        f"{text}; given up after {time.monotonic() - begun:.0f} s"
                    ) from error
                logger.info("%s; tried again in %.1f s", text, pause)
                self._heard(text, not isinstance(error, PermissionError | FileNotFoundError))
                failed = True
            else:
                if failed:
                    self._heard(None, True)
                return result
            self._closing.wait(pause * self._random.uniform(0.5, 1.0))
            pause = min(pause * 2, LONGEST_PAUSE_S)


def said(error: BaseException) -> str:
    """One line, at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."
