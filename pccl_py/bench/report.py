"""What a measurement gives back, and how it is printed: a table for people, or one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from .plot import Bar
from .units import MIB, value_text


def titles(text: str) -> str:
    """Of columns aligned to the right: "bytes:12 max_error:9 | ratio:5" are words and widths."""
    return " ".join(_title(*word.partition(":")) for word in text.split())


def _title(word: str, _: str, width: str) -> str:
    return f"{word.replace('_', ' '):>{width or 0}}"


class Row(Protocol):
    """A line of a bench that is printed as it is measured. `right`: no wrong value was seen."""

    @property
    def right(self) -> bool: ...
    def record(self) -> dict[str, Any]:
        """Of the JSON."""
        ...

    def head(self) -> str:
        """The lines above the row, printed where they differ from those of the row before."""
        ...

    def line(self) -> str: ...
    def bar(self) -> Bar:
        """Of the plot."""
        ...


@dataclass(frozen=True)
class Figure:
    """One number. `goal`: it shall not exceed this; None: no goal. `unit`: "s", "B" or what is counted.
    `right`: no wrong value was seen on the way."""

    bench: str
    figure: str
    value: float | None
    unit: str
    goal: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    right: bool = True

    @property
    def reached(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value is not None and self.value <= self.goal

    def line(self) -> str:
        return json.dumps(asdict(self) | {"reached": self.reached})

    def bar(self) -> Bar:
        scale, unit = {"s": (1e3, "ms"), "B": (1 / MIB, "MiB")}.get(self.unit, (1.0, self.unit or "count"))
        values = {"measured": self.value, "goal": self.goal}
        return Bar(self.figure, {name: v * scale for name, v in values.items() if v is not None}, unit)

    def row(self) -> list[str]:
        goal = "" if self.goal is None else f"<= {value_text(self.goal, self.unit)}"
        reached = {None: "", True: "yes", False: "NO"}[self.reached] + (
            "" if self.right else " (WRONG VALUES)"
        )
        details = ", ".join(f"{name} {_short(value)}" for name, value in self.details.items())
        return [self.figure, value_text(self.value, self.unit), goal, reached, details]


def print_figures(figures: Sequence[Figure], *, as_json: bool) -> None:
    if as_json:
        print(*(figure.line() for figure in figures), sep="\n", flush=True)
    else:
        print_table(["figure", "value", "goal", "reached", "details"], [figure.row() for figure in figures])


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int = 1) -> None:
    """Columns from `numbers_from` on are aligned to the right, the last one excepted."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        last = len(row) - 1
        cells = [
            text.rjust(width) if numbers_from <= i < last else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip(), flush=True)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
