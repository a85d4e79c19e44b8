"""The report as one page that needs nothing else: figures, plots over time, events, faults."""

from __future__ import annotations

from html import escape
from pathlib import Path

from .history import History
from .plots import Line, Mark, dots, lines
from .report import FAULTS, Report
from .resources import MIB

_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1000px; color: #222; }
h1 { font-size: 1.4em; } h2 { font-size: 1.1em; margin: 1.6em 0 .3em; }
.good { background: #e3f4e3; } .bad { background: #fbdcdc; }
.verdict { padding: .5em .8em; border-radius: 4px; } table { border-collapse: collapse; }
td, th { padding: .15em .9em .15em 0; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre { background: #f5f5f5; padding: .6em; overflow-x: auto; white-space: pre-wrap; } svg { display: block; }
code { background: #f5f5f5; padding: .1em .3em; }
"""
EVENTS_MAX = 400


def write_page(path: Path, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    title = f"stress {report.scenario}, seed {report.seed}"
    history = report.history
    parts = [f"<h1>{escape(title)}</h1>", _verdict(report), "<h2>Figures</h2>", _figures(report)]
    if history is not None:
        parts += [_results(history), _members(history), _resources(history), _events(history)]
    if report.details:
        parts += ["<h2>Faults and notes</h2>", *(f"<pre>{escape(text)}</pre>" for text in report.details)]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>\n"


def _verdict(report: Report) -> str:
    good = report.faultless and report.operations > 0
    text = "no fault" if good else "faults" if not report.faultless else "nothing was done"
    told = f"{report.peers} peers, {report.seconds:.0f} s, {report.operations} results checked: {text}."
    again = f"The same schedule again: <code>{escape(report.command)}</code>"
    return f'<p class="verdict {"good" if good else "bad"}">{escape(told)} {again}</p>'


def _figures(report: Report) -> str:
    names = (*FAULTS, "kills", "pauses", "leaves", "joins", "repeated", "evictions", "evictions_unexpected")
    rows = [(name, getattr(report, name)) for name in names]
    rows += [("recovery_ms", report.recovery_ms)]
    rows += [(f"join_ms, {name}", value) for name, value in report.join_ms.items()]
    rows += list(report.more.items())
    cells = "".join(f"<tr><td>{escape(name)}</td>{_cells(value)}</tr>" for name, value in rows)
    return f"<table><tr><th></th><th></th><th>p99</th><th>max</th><th>of</th></tr>{cells}</table>"


def _cells(value: object) -> str:
    """A summary has its median first."""
    if isinstance(value, dict):
        values = [f"{value.get(key, 0):.1f}" for key in ("median", "p99", "max")] + [str(value.get("count"))]
    else:
        values = ["-" if value is None else str(value)]
    return "".join(f'<td class="number">{escape(text)}</td>' for text in values)


def _marks(history: History) -> list[Mark]:
    return [Mark(event.t - history.began, event.sort) for event in history.events]


def _results(history: History) -> str:
    drawn = [Line(f"place {place}", points) for place, points in history.rates().items()]
    return "<h2>Checked results per second, by place</h2>" + lines(drawn, _marks(history))


def _members(history: History) -> str:
    steps: list[tuple[float, float]] = []
    for t, count in history.members:
        if steps:
            steps.append((t - history.began, steps[-1][1]))
        steps.append((t - history.began, count))
    return "<h2>Members</h2>" + lines([Line("members", steps)], _marks(history), height=90)


def _resources(history: History) -> str:
    lives = [life for life in history.resources.lives.values() if len(life.samples) > 1]
    shown = sorted(lives, key=lambda life: -len(life.samples))[:40]
    told = "<h2>What processes hold</h2>"
    for name, unit, text in (
        ("memory", MIB, "memory, MiB"),
        ("shared_memory", MIB, "shared memory, MiB"),
        ("descriptors", 1, "descriptors"),
        ("threads", 1, "threads"),
    ):
        drawn = [
            Line(life.name, [(one.t - history.began, getattr(one, name) / unit) for one in life.samples])
            for life in shown
        ]
        told += f"<p>{text}</p>" + lines(drawn, [], height=110)
    return told


def _events(history: History) -> str:
    sorts = sorted({event.sort for event in history.events})
    rows = [(event.t - history.began, sorts.index(event.sort), event.text) for event in history.events]
    picture = dots(sorts, [(t, row, text) for t, row, text in rows])
    listed = [f"{t:8.2f} s  {text}" for t, _, text in sorted(rows)[:EVENTS_MAX]]
    more = len(rows) - len(listed)
    listed += [f"and {more} more"] if more > 0 else []
    text = escape("\n".join(listed))
    told = f"<details><summary>all events</summary><pre>{text}</pre></details>"
    return f"<h2>What was done to it</h2>{picture}{told}"
