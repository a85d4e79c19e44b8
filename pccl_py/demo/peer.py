"""The process around one peer of the demonstration: what it writes, and when it connects and ends."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from .options import Options
from .train import Say, train

_writing = threading.Lock()  # the library's threads have news, too


def run_peer(options: Options) -> int:
    """Trains, and writes what happens to standard output; returns the exit status."""
    say: Say = _as_json if options.json else partial(_as_text, options)
    logger = logging.getLogger("pccl_py")
    logger.addHandler(_News(say))
    logger.setLevel(logging.INFO)
    connect_when: Callable[[], None] = _when_told if options.held else _at_once
    try:
        train(options, say, connect_when)
    except KeyboardInterrupt:
        return 130
    return 0


class _News(logging.Handler):
    """Tells at once that somebody came, went or is waited for."""

    def __init__(self, say: Say) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say("news", text=record.getMessage())


def _as_json(event: str, **values: Any) -> None:
    line = json.dumps({"event": event, "t": time.monotonic(), **values})
    with _writing:
        print(line, flush=True)


def _as_text(options: Options, event: str, **values: Any) -> None:
    if text := _text(options, event, values):
        with _writing:
            print(" ".join(filter(None, [time.strftime("%H:%M:%S"), options.name, text])), flush=True)


def _text(options: Options, event: str, values: dict[str, Any]) -> str:
    match event:
        case "ready":
            return f"{values['parameters']:,} parameters, {values['bytes'] / 1e6:.1f} MB of text; connects"
        case "member":
            return f"admitted as peer {values['id']}, one of {values['peers']}"
        case "begins":
            return f"trains window {values['window'] + 1} from state {values['digest']}"
        case "step" if values["step"] and values["step"] % 20 == 0:
            return f"step {values['step']} of window {values['window'] + 1}: loss {values['loss']:.3f}"
        case "window":
            peers = " ".join(map(str, values["contributors"]))
            return (
                f"window {values['number']} of {options.windows}: held-out loss {values['held_out']:.4f}, "
                f"peers {peers}, reduced in {values['wait_s'] * 1e3:.1f} ms, state {values['digest']}"
            )
        case "news":
            return str(values["text"])
        case "end":
            return f"done; sent {(values['sent'] + values['state_sent']) / 1e6:.1f} MB"
    return ""


def _at_once() -> None:
    """Connects when it is ready."""


def _when_told() -> None:
    """Returns after a line on standard input. When that is closed later, nobody needs this process."""
    if not sys.stdin.readline():
        os._exit(1)
    threading.Thread(target=_end_with_stdin, daemon=True).start()


def _end_with_stdin() -> None:
    while sys.stdin.readline():
        pass
    os._exit(1)
