"""Shows a demonstration while it happens: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import importlib.util
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .record import Event, Peer, Record

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

NOTES_SHOWN = 9
BAR = 36
REFRESH_S = 0.25


class View:
    """Lines: one per event that is news."""

    def __init__(self, record: Record) -> None:
        self._record = record

    def show(self, name: str, event: Event) -> None:
        """After the record has taken the event."""
        if event["event"] == "window":
            row = self._record.rows()[-1]
            if set(row.members) <= set(row.digests) | self._ended():
                bits = "the same bits" if row.equal else "DIFFERENT BITS"
                loss = f"held-out loss {row.held_out:.4f}"
                windows = self._record.options.windows
                self.note(f"window {row.number} of {windows}: {loss}, {' '.join(row.members)} hold {bits}")
        elif text := self._text(name, event):
            self.note(text)

    def _text(self, name: str, event: Event) -> str:
        match event["event"]:
            case "ready" if not any(peer.told_at for peer in self._record.peers.values()):
                size, text = f"{event['parameters']:,} parameters", f"{event['bytes'] / 1e6:.1f} MB of text"
                return f"{name} is warm: {size}, {text}"
            case "begins" if event["window"]:
                return f"{name} has the shared state and trains window {event['window'] + 1}"
            case "news" if "view " in event["text"] and self._record.windows < self._record.options.windows:
                return f"{name} hears: {event['text']}"
            case "exit" if event["status"] != 0:
                return f"{name} ended with status {event['status']}"
        return ""

    def _ended(self) -> set[str]:
        return {name for name, peer in self._record.peers.items() if peer.killed_at}

    def note(self, text: str) -> None:
        print(f"{self._seconds():6.1f} s  {text}", flush=True)

    def _seconds(self) -> float:
        return time.monotonic() - self._record.began_at

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


class LiveView(View):
    """A table of peers, the loss of each window as a bar, and the last notes."""

    def __init__(self, record: Record, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__(record)
        self._notes: list[str] = []
        self._console = console or Console()
        # Drawn by the thread that changes the record.
        self._live = Live(get_renderable=self._picture, console=self._console, auto_refresh=False)
        self._drawn_at = 0.0

    def show(self, name: str, event: Event) -> None:
        super().show(name, event)
        if self._seconds() - self._drawn_at >= REFRESH_S:
            self._live.refresh()
            self._drawn_at = self._seconds()

    def note(self, text: str) -> None:
        self._notes.append(f"{self._seconds():6.1f} s  {text}")

    def _picture(self) -> Group:
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        options = self._record.options
        title = f"DiLoCo, {options.windows} windows of {options.steps} steps, {self._seconds():.0f} s"
        notes = Text("\n".join(self._notes[-self._room()[1] :]))
        return Group(
            Panel(self._peers(), title=title, title_align="left"),
            Panel(self._losses(), title="held-out loss, nats per byte", title_align="left"),
            Panel(notes, title="events", title_align="left"),
        )

    def _room(self) -> tuple[int, int]:
        """Lines for windows and for notes, with what else there is, in the height of the terminal."""
        room = self._console.height - len(self._record.peers) - 8
        notes = max(3, min(NOTES_SHOWN, room // 3))
        return max(3, room - notes), notes

    def _peers(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, expand=True)
        for heading in ("peer", "is", "window", "step", "batch loss", "sent"):
            table.add_column(heading, justify="left" if heading in ("peer", "is", "step") else "right")
        for peer in self._record.peers.values():
            table.add_row(*self._row(peer), style=_STYLES.get(peer.state, ""))
        return table

    def _row(self, peer: Peer) -> list[str]:
        steps = self._record.options.steps
        filled = round(20 * peer.step / steps)
        bar = "━" * filled + "╌" * (20 - filled) if peer.state == "trains" else ""
        loss = "" if peer.loss is None else f"{peer.loss:.3f}"
        window = min(peer.window + 1, self._record.options.windows) if peer.began_at else ""
        return [
            peer.name,
            peer.state,
            str(window),
            bar,
            loss,
            f"{(peer.sent + peer.state_sent) / 1e6:.1f} MB",
        ]

    def _losses(self) -> Table:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        rows = self._record.rows()
        highest = max((row.held_out for row in rows), default=1.0)
        for row in rows[-self._room()[0] :]:
            bar = "█" * max(1, round(BAR * row.held_out / highest))
            same = "same bits" if row.equal else "[bold red]DIFFERENT BITS[/]"
            table.add_row(
                f"{row.number:2}", f"{row.held_out:.3f}", f"[cyan]{bar}[/]", " ".join(row.members), same
            )
        return table

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.refresh()
        self._live.__exit__(kind, error, trace)


_STYLES = {"killed": "red", "at the door": "yellow", "admitted": "yellow", "trains": "green", "starts": "dim"}


def view_for(record: Record) -> View:
    plain = record.options.plain or not sys.stdout.isatty() or importlib.util.find_spec("rich") is None
    return View(record) if plain else LiveView(record)
