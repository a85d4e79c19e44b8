"""`python -m stress.snapshot_keeper`: a keeper as every other, which strikes itself at a named moment.

In the folder of the environment variable MOMENTS a file `NAME` for the keeper of that name holds
`MOMENT SECONDS WHAT`: so long after it next comes to that moment, the trainer whose pid is in `NAME.pid`, the
keeper, or both are killed, or the keeper is stopped.
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
            wanted, seconds, what = self._order.read_text().split()
        except (OSError, ValueError):
            return
        if wanted != moment:
            return
        with suppress(OSError):
            self._order.unlink()
            if float(seconds) == 0:
                self._strike(what)
            else:
                threading.Timer(float(seconds), self._strike, (what,)).start()

    def _strike(self, what: str) -> None:
        if what in ("trainer", "both"):
            with suppress(OSError, ValueError):
                os.kill(int(self._order.with_suffix(".pid").read_text()), signal.SIGKILL)
        if what != "trainer":
            os.kill(os.getpid(), signal.SIGSTOP if what == "stop" else signal.SIGKILL)


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
