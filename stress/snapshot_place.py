"""One host of `stress snapshots`: a trainer and its keeper, what they have said, and what must come back."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pccl_py import PcclError
from pccl_py.snapshot import ask, places

from .processes import Child
from .records import Record
from .report import Report

RUN = "soak"


@dataclass(frozen=True)
class Task:
    """Of a trainer. first: the step to begin after where nothing is restored."""

    place: int
    master: str
    parity: int
    elements: int
    first: int
    code_s: float
    pace_s: float
    sabotage: str | None


@dataclass(eq=False)
class Place:
    """floor: the newest step that has to come back, whatever happens within the parity. may_be_gone: more was
    lost than that. stopped: the pid of its keeper, while that is stopped."""

    number: int
    child: Child | None = None
    floor: int = -1
    exactly: int | None = None
    may_be_gone: bool = False
    must_be_gone: bool = False
    came: bool = False  # has said what it found
    losses: int = -1
    coded_at: float = 0.0  # when its newest snapshot was, last
    stopped: int = 0
    struck: bool = False
    ordered: bool = False  # to strike itself at a moment

    @property
    def alive(self) -> bool:
        return self.child is not None and self.child.alive

    @property
    def keeper_name(self) -> str:
        return f"k{self.number}"

    def summary(self) -> ask.messages.Summary | None:
        with suppress(PcclError, OSError):
            return ask.summary(places.place(RUN, self.keeper_name).socket)
        return None

    def keeper_pid(self) -> int:
        """0: there is none."""
        found = None if self.stopped else self.summary()
        return self.stopped if found is None else found.pid

    def told(self) -> str:
        facts = f"step {self.floor} safe, losses {self.losses}, coded at {self.coded_at:.1f}"
        return f"place {self.number}: alive {self.alive}, came {self.came}, struck {self.struck}, {facts}"

    def log(self) -> str:
        path: Path = places.place(RUN, self.keeper_name).log
        with suppress(OSError):
            return f"--- keeper {self.keeper_name}\n" + "\n".join(path.read_text().splitlines()[-60:])
        return ""

    def signal_keeper(self, pid: int, number: int) -> None:
        with suppress(ProcessLookupError):
            if pid:
                os.kill(pid, number)
        self.stopped = pid if number == signal.SIGSTOP else 0

    def hear(self, record: Record, report: Report) -> int:
        """Checks what the trainer says; how many snapshots are checked by it."""
        what = record["what"]
        if what == "restored":
            return self._restored(record, report)
        if what == "gone":
            self._gone(str(record["text"]), report)
        elif what == "failed":
            report.broken(f"trainer {self.number}: {record['text']}")
        elif what == "complete":
            self.losses = int(record["losses"])
            if record["coded"] is not None:
                self.floor = max(self.floor, int(record["coded"]))
                if record["coded"] == record["step"]:
                    self.coded_at = float(record["t"])
            if record["unchanged"]:
                report.more["coded_by_differences"] = int(report.more.get("coded_by_differences", 0)) + 1
            if record["fault"]:
                report.note(f"trainer {self.number}, step {record['step']}: {record['fault']}")
        return 0

    def _restored(self, record: Record, report: Report) -> int:
        self.came, step = True, int(record["step"])
        who = f"trainer {self.number}, step {step}"
        if record["text"]:
            report.wrong(f"{who}: {record['text']}")
        if self.must_be_gone:
            report.wrong(f"{who}: it was restored, and more had been lost than the parity")
        elif step < self.floor and not self.may_be_gone:
            report.wrong(f"{who}: step {self.floor} was safe")
        elif self.exactly is not None and step < self.exactly:
            report.wrong(f"{who}: its keeper had step {self.exactly}")
        self.floor = step if self.may_be_gone else max(self.floor, step)
        self.exactly, self.must_be_gone = None, False
        return 1

    def _gone(self, text: str, report: Report) -> None:
        self.came = True
        first = self.floor < 0
        if not (first or self.may_be_gone or self.must_be_gone):
            report.wrong(f"trainer {self.number}: step {self.floor} was safe, and {text}")
        elif not first and (f"'t{self.number}' is gone" not in text or "keepers of its code" not in text):
            report.wrong(f"trainer {self.number}: that is not what is gone: {text}")
        self.exactly, self.must_be_gone, self.floor = None, False, -1
