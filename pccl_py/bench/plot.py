"""`--plot out.png`: the rows of a bench as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ..errors import UsageError

COLORS = ("#3b7dd8", "#e09f3e", "#4c9f70", "#d1495b", "#8f6fc1", "#3aa6a6")
LOG_FROM = 50.0  # between the longest and the shortest bar


@dataclass(frozen=True)
class Bar:
    """Some values of one row, beside each other; `unit`: what the axis says."""

    label: str
    values: dict[str, float] = field(default_factory=dict)
    unit: str = ""


def check(path: str) -> None:
    """Before anything is measured. Raises UsageError."""
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'pccl-py[plot]'")
    if not path.lower().endswith(".png"):
        raise UsageError(f"--plot {path}: the picture is a PNG; name it so")
    if not Path(path).absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: there is no such directory")


def draw(title: str, bars: Sequence[Bar], path: str) -> None:
    """Writes a PNG with one panel for each unit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    bars = _joined(bars)
    units = list(dict.fromkeys(bar.unit for bar in bars))
    panels = [[bar for bar in bars if bar.unit == unit] for unit in units]
    heights = [1.0 + 0.32 * sum(len(bar.values) + 1 for bar in panel) for panel in panels]
    figure = Figure(figsize=(9, sum(heights) + 0.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for panel, axes in zip(
        panels, figure.subplots(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0], strict=True
    ):
        _draw_panel(axes, panel)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.savefig(path, format="png")


def _joined(bars: Sequence[Bar]) -> list[Bar]:
    """Rows with the same label, as those in place and out of place, become one group of bars."""
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for bar in bars:
        groups.setdefault((bar.label, bar.unit), {}).update(bar.values)
    return [Bar(label, values, unit) for (label, unit), values in groups.items()]


def _draw_panel(axes: object, bars: Sequence[Bar]) -> None:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

    assert isinstance(axes, Axes)
    series = list(dict.fromkeys(name for bar in bars for name in bar.values))
    colors = {name: COLORS[place % len(COLORS)] for place, name in enumerate(series)}
    place, ticks, labels = 0.0, [], []
    for bar in bars:
        places = [place + i for i in range(len(bar.values))]
        drawn = axes.barh(places, list(bar.values.values()), color=[colors[name] for name in bar.values])
        axes.bar_label(drawn, [f"{value:.3g}" for value in bar.values.values()], padding=3, fontsize=8)
        ticks.append(sum(places) / max(len(places), 1))
        labels.append(bar.label)
        place += len(bar.values) + 1
    values = [value for bar in bars for value in bar.values.values() if value > 0]
    if values and max(values) / min(values) > LOG_FROM:
        axes.set_xscale("log")
    axes.margins(x=0.12, y=0.02)
    axes.set_yticks(ticks, labels)
    axes.invert_yaxis()
    axes.set_xlabel(bars[0].unit)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=colors[name], label=name) for name in series]
    axes.legend(handles=handles, frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))
