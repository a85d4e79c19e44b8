"""What a run found, as text for people and as one JSON object; as a page, see page.py."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from .history import History

DETAILS_MAX = 10  # of each sort
FAULTS = ("wrong_values", "survivor_deaths", "hangs", "broken_promises", "leaks")


@dataclass
class Report:
    """`operations`: all-reduces that a peer finished and checked. `evictions_unexpected`: of peers that
    nobody had stopped and whose island was whole. `broken_promises`: what was to happen within a time and did
    not. `leaks`: what grew in a process. `details`: what is known about each fault."""

    scenario: str
    seed: int
    command: str
    peers: int
    seconds: float = 0.0
    kills: int = 0
    pauses: int = 0
    leaves: int = 0
    joins: int = 0
    operations: int = 0
    repeated: int = 0
    wrong_values: int = 0
    survivor_deaths: int = 0
    hangs: int = 0
    broken_promises: int = 0
    leaks: int = 0
    evictions: int = 0
    evictions_unexpected: int = 0
    recovery_ms: dict[str, float] | None = None
    join_ms: dict[str, dict[str, float] | None] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)
    history: History | None = None

    def wrong(self, text: str) -> None:
        self.wrong_values += 1
        self._detail(f"WRONG VALUE: {text}")

    def death(self, text: str) -> None:
        self.survivor_deaths += 1
        self._detail(f"SURVIVOR DIED: {text}")

    def hang(self, text: str) -> None:
        self.hangs += 1
        self._detail(f"HANG: {text}")

    def broken(self, text: str) -> None:
        self.broken_promises += 1
        self._detail(f"PROMISE BROKEN: {text}")

    def leak(self, text: str) -> None:
        self.leaks += 1
        self._detail(f"LEAK: {text}")

    def note(self, text: str) -> None:
        self._detail(f"NOTE: {text}")

    def _detail(self, text: str) -> None:
        sort = text.partition(":")[0]
        if sum(detail.startswith(sort) for detail in self.details) < DETAILS_MAX:
            self.details.append(text)

    @property
    def faultless(self) -> bool:
        return not any(getattr(self, name) for name in FAULTS)

    def as_json(self) -> str:
        history, self.history = self.history, None  # it is for pages
        fields = asdict(self)
        self.history = history
        fields.pop("history")
        return json.dumps(fields.pop("more") | fields)

    def as_text(self) -> str:
        lines = [f"{self.scenario}, seed {self.seed}, {self.peers} peers, {self.seconds:.1f} s"]
        for name in ("kills", "pauses", "leaves", "joins", "operations", "repeated", "evictions"):
            if value := getattr(self, name):
                lines.append(f"  {name:22} {value}")
        lines.append(f"  {'evictions_unexpected':22} {self.evictions_unexpected}")
        for name in FAULTS:
            lines.append(f"  {name:22} {getattr(self, name)}")
        lines.append(f"  {'recovery_ms':22} {_text(self.recovery_ms)}")
        lines += [f"  {f'join_ms, {name}':22} {_text(value)}" for name, value in self.join_ms.items()]
        lines += [f"  {name:22} {value}" for name, value in self.more.items()]
        lines += ["", *self.details] if self.details else []
        verdict = "no fault" if self.faultless else "FAULTS"
        if not self.operations:
            verdict = "NOTHING WAS DONE: no operation"
        return "\n".join([*lines, f"{verdict}; the same schedule again: {self.command}"])


def _text(summary: dict[str, float] | None) -> str:
    if summary is None:
        return "-"
    return (
        f"median {summary['median']:.1f}  p99 {summary['p99']:.1f}  max {summary['max']:.1f}"
        f"  of {summary['count']:.0f}"
    )
