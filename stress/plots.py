"""Plots as SVG inside a page: lines over time with marks, and rows of dots."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, BOTTOM, TOP = 960, 52, 20, 6
_COLOURS = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #7f7f7f #bcbd22 #17becf".split()
LEGEND_MAX = 10


class Line(NamedTuple):
    name: str
    points: Sequence[tuple[float, float]]


class Mark(NamedTuple):
    """A thin line at a moment."""

    x: float
    sort: str


def lines(drawn: Sequence[Line], marks: Sequence[Mark], height: int = 200) -> str:
    """Over seconds; the y axis begins at 0."""
    right = max((x for line in drawn for x, _ in line.points), default=1.0) or 1.0
    top = max((y for line in drawn for _, y in line.points), default=1.0) or 1.0
    inside = height - BOTTOM - TOP

    def x_of(x: float) -> float:
        return LEFT + x / right * (WIDTH - LEFT - 8)

    def y_of(y: float) -> float:
        return TOP + inside * (1 - y / top)

    parts = [_axes(right, top, height)]
    for mark in marks:
        if mark.x <= right:
            x = x_of(mark.x)
            parts.append(f'<path d="M{x:.1f} {TOP}V{TOP + inside}" stroke="#d00" opacity=".18"/>')
    for number, line in enumerate(drawn):
        points = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line.points)
        colour = _COLOURS[number % len(_COLOURS)]
        style = f'fill="none" stroke="{colour}"'
        parts.append(f'<polyline points="{points}" {style}><title>{escape(line.name)}</title></polyline>')
    return _svg(height, parts) + _legend([line.name for line in drawn])


def dots(rows: Sequence[str], points: Sequence[tuple[float, int, str]]) -> str:
    """(seconds, row, text shown when pointed at)"""
    height = 18 * max(1, len(rows)) + BOTTOM + TOP
    right = max((x for x, _, _ in points), default=1.0) or 1.0
    left = 120
    parts = [
        f'<text x="0" y="{TOP + 18 * row + 13}" font-size="11">{escape(name)}</text>'
        for row, name in enumerate(rows)
    ]
    for x, row, text in points:
        at = left + x / right * (WIDTH - left - 8)
        colour = _COLOURS[row % len(_COLOURS)]
        circle = f'<circle cx="{at:.1f}" cy="{TOP + 18 * row + 9}" r="3.5" fill="{colour}">'
        parts.append(f"{circle}<title>{x:.2f} s: {escape(text)}</title></circle>")
    parts.append(f'<text x="{left}" y="{height - 4}" font-size="11">0 s</text>')
    parts.append(_text(WIDTH - 8, height - 4, f"{right:.0f} s", "end"))
    return _svg(height, parts)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="11" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="100%">{"".join(parts)}</svg>'


def _axes(right: float, top: float, height: int) -> str:
    base = height - BOTTOM
    texts = [
        f'<path d="M{LEFT} {TOP}V{base}H{WIDTH - 8}" stroke="#888" fill="none"/>',
        f'<text x="{LEFT - 4}" y="{TOP + 10}" font-size="11" text-anchor="end">{top:.4g}</text>',
        f'<text x="{LEFT - 4}" y="{base}" font-size="11" text-anchor="end">0</text>',
    ]
    for share in (0.25, 0.5, 0.75, 1.0):
        x = LEFT + share * (WIDTH - LEFT - 8)
        anchor = "end" if share == 1.0 else "middle"
        texts.append(_text(x, height - 4, f"{share * right:.3g} s", anchor))
    return "".join(texts)


def _legend(names: Sequence[str]) -> str:
    told = [
        f'<span style="color:{_COLOURS[number % len(_COLOURS)]}">{escape(name)}</span>'
        for number, name in enumerate(names[:LEGEND_MAX])
    ]
    told += [f"and {len(names) - LEGEND_MAX} more"] if len(names) > LEGEND_MAX else []
    return f"<p>{' &nbsp; '.join(told)}</p>" if len(names) > 1 else ""
