"""An all-reduce whose input is made again where an attempt ended, instead of kept: a copy less in memory."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace

from .errors import PeerLost
from .work import OpInfo, Work

logger = logging.getLogger("pccl_py")


def until_committed(post: Callable[[float], Work], remake: Callable[[], object], seconds: float) -> OpInfo:
    """`post(timeout)` begins an attempt, whose end all peers hear alike: in this thread, with the memory the
    caller's again, it is `remake()` that comes next. seconds: of all together; below 0: no limit."""
    began = time.monotonic()
    sent = received = lost = 0
    while True:
        left = seconds - (time.monotonic() - began) if seconds >= 0 else math.inf
        work = post(max(left, 0.001))
        try:
            info = work.finish()
        except PeerLost as error:
            logger.info("%s", error)
            more = work.traffic
            sent, received, lost = sent + more[0], received + more[1], lost + 1
            remake()
            continue
        if not lost:
            return info
        return replace(
            info,
            bytes_sent=info.bytes_sent + sent,
            bytes_received=info.bytes_received + received,
            seconds=time.monotonic() - began,
            attempts=info.attempts + lost,
        )
