"""`python -m stress.snapshot_keeper`: a keeper as every other, which strikes itself at a named moment.

In the folder of the environment variable MOMENTS a file `NAME` for the keeper of that name holds
`MOMENT SECONDS SIGNAL PID ...`: so long after it next comes to that moment, these processes get the signal,
and then the keeper.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pccl_py.snapshot import bringing, coding, keeper, member
from pccl_py.snapshot.bringing import Bringing
from pccl_py.snapshot.coding import Coding
from pccl_py.snapshot.holding import Holding
from pccl_py.snapshot.protection import Protection

MOMENTS = "PCCL_STRESS_MOMENTS"
# Of a keeper's work, each before it does so.
NAMES = {
    "flip": (Holding, "complete"),  # what a trainer has copied becomes the newest
    "round": (member, "to_all"),
    "encode": (Coding, "encode"),
    "vote": (coding, "all_say_yes"),  # whether it begins, and whether all is placed
    "coded": (Protection, "complete"),  # all have agreed; trainers do not know yet
    "rescue": (Bringing, "rescue"),
    "move": (Bringing, "move"),
    "bring": (bringing, "all_say_yes"),  # there is room, the bytes come now
    "adopt": (Protection, "adopt"),
    "attach": (Holding, "described"),
    "free": (Holding, "close"),
}


def watch(name: str, strike: Callable[[str], None]) -> None:
    owner, attribute = NAMES[name]
    before = getattr(owner, attribute)

    def reached(*args: Any, **named: Any) -> Any:
        strike(name)
        return before(*args, **named)

    setattr(owner, attribute, reached)


class Striker:
    def __init__(self, order: Path) -> None:
        self._order = order

    def at(self, moment: str) -> None:
        try:
            wanted, seconds, number, *pids = self._order.read_text().split()
        except (OSError, ValueError):
            return
        if wanted != moment:
            return
        with suppress(OSError):
            self._order.unlink()
            if float(seconds) == 0:
                self._strike(int(number), pids)
            threading.Timer(float(seconds), self._strike, (int(number), pids)).start()

    def _strike(self, number: int, pids: list[str]) -> None:
        for pid in [*map(int, pids), os.getpid()]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def main(argv: list[str]) -> int:
    folder = os.environ.get(MOMENTS)
    if folder is not None:
        striker = Striker(Path(folder) / argv[argv.index("--keeper") + 1])
        for name in NAMES:
            watch(name, striker.at)
    faulthandler.register(signal.SIGUSR1)
    return keeper.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
