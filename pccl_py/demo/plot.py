"""The picture of a demonstration: losses over time, and below it who was there when."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .record import Peer, Record

HELD_OUT = "#1f3a5f"
COLORS = ("#4c9f70", "#3b7dd8", "#d1495b", "#e09f3e", "#8f6fc1", "#3aa6a6")
KILL, JOIN = "#b3001b", "#b36b00"


def draw(record: Record, path: str) -> None:
    """Writes a PNG."""
    figure = Figure(figsize=(10, 6.4), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    ratios = [3.2, 0.35 * len(record.peers) + 0.4]
    losses, presence = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
    _draw_losses(record, losses)
    _draw_presence(record, presence)
    begun = [peer.told_at - record.began_at for peer in record.peers.values() if peer.told_at is not None]
    presence.set_xlim(left=min(begun) - 1)  # before, Python and torch start
    for axes in (losses, presence):
        _draw_events(record, axes)
        axes.spines[["top", "right"]].set_visible(False)
    _name_events(record, losses)
    figure.savefig(path, format="png")


def _color(record: Record, name: str) -> str:
    return COLORS[list(record.peers).index(name) % len(COLORS)]


def _draw_losses(record: Record, axes: Axes) -> None:
    for name, peer in record.peers.items():
        points = _smooth(peer.losses)
        seconds = [t - record.began_at for t, _ in points]
        axes.plot(seconds, [loss for _, loss in points], color=_color(record, name), alpha=0.5, lw=1)
    rows = record.rows()
    seconds = [row.at - record.began_at for row in rows]
    axes.plot(seconds, [row.held_out for row in rows], "o-", color=HELD_OUT, lw=2, ms=5)
    axes.set_ylabel("loss (nats per byte)")
    options = record.options
    axes.set_title(
        f"DiLoCo on peers that come and go: {record.parameters / 1e3:.0f} k parameters, "
        f"{options.windows} windows of {options.steps} steps",
        loc="left",
        fontsize=12,
        pad=26,
    )
    handles = [
        axes.plot([], [], "o-", color=HELD_OUT, lw=2, ms=5)[0],
        axes.plot([], [], color="#777777", lw=1)[0],
    ]
    labels = ["outer model on held-out text, after each window", "each peer's batches, smoothed"]
    axes.legend(handles, labels, frameon=False, loc="upper right")
    axes.grid(axis="y", alpha=0.25)


def _smooth(points: list[tuple[float, float]], keep: float = 0.85) -> list[tuple[float, float]]:
    smooth, mean = [], points[0][1] if points else 0.0
    for t, loss in points:
        mean = keep * mean + (1 - keep) * loss
        smooth.append((t, mean))
    return smooth


def _draw_presence(record: Record, axes: Axes) -> None:
    names = list(record.peers)
    for place, (name, peer) in enumerate(record.peers.items()):
        for begin, end, alpha in _spans(record, peer):
            axes.barh(place, end - begin, left=begin, height=0.55, color=_color(record, name), alpha=alpha)
    for row in record.rows():
        axes.axvline(row.at - record.began_at, color="white", lw=0.8)
    axes.set_yticks(range(len(names)), [f"peer {name}" for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("seconds since the start; white lines: commits of windows; pale: at the door")
    axes.tick_params(axis="y", length=0)


def _spans(record: Record, peer: Peer) -> list[tuple[float, float, float]]:
    """(begin, end, opacity) in seconds since the start."""
    zero = record.began_at
    last = max((row.at for row in record.rows()), default=zero)
    end = peer.killed_at or peer.ended_at or last
    spans = []
    if peer.told_at is not None:
        spans.append((peer.told_at - zero, (peer.began_at or end) - zero, 0.3))
    if peer.began_at is not None:
        spans.append((peer.began_at - zero, end - zero, 1.0))
    return spans


def _events(record: Record) -> list[tuple[float, str, str]]:
    found = []
    if (victim := record.victim) and victim.killed_at is not None:
        found.append((victim.killed_at - record.began_at, f"kill -9 {victim.name}", KILL))
    if (joiner := record.joiner) and joiner.began_at is not None:
        found.append((joiner.began_at - record.began_at, f"{joiner.name} joins", JOIN))
    return found


def _draw_events(record: Record, axes: Axes) -> None:
    for seconds, _, color in _events(record):
        axes.axvline(seconds, color=color, lw=1.4, ls="--")


def _name_events(record: Record, axes: Axes) -> None:
    """Above the axes, where no curve runs."""
    for seconds, text, color in _events(record):
        axes.annotate(
            text,
            (seconds, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=color,
            fontweight="bold",
        )
