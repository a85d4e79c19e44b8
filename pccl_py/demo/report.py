"""What a demonstration ends with: tables, a picture, and the exit status."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterable, Sequence

from .record import Record, Traffic

MB = 1e6


def write_report(record: Record, faults: Sequence[str]) -> int:
    """Prints it, draws the picture, and returns 0 when nothing went wrong."""
    faults = [*faults, *record.faults()]
    for part in (
        _windows(record),
        _events(record),
        _traffic(record),
        _proof(record, faults),
        _picture(record),
    ):
        if part:
            print("\n" + "\n".join(part), flush=True)
    return 1 if faults else 0


def table(rows: Iterable[Sequence[object]], left: Sequence[int] = ()) -> list[str]:
    """Lines with aligned columns; the first row is the heading. `left`: columns that are text."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        columns = zip(row, widths, strict=True)
        aligned = [c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(columns)]
        lines.append("  ".join(aligned).rstrip())
    return lines


def _windows(record: Record) -> list[str]:
    names = list(record.peers)
    rows: list[list[object]] = [
        ["window", "at", "held-out loss", *names, "digest of the shared state", "equal"]
    ]
    for row in record.rows():
        marks = [_mark(name, row.members, row.digests) for name in names]
        digest = " ".join(sorted(set(row.digests.values())))
        equal = f"{len(row.digests)} of {len(row.digests)}" if row.equal else "NO"
        at = f"{row.at - record.began_at:.1f} s"
        rows.append([row.number, at, f"{row.held_out:.4f}", *marks, digest, equal])
    lines = table(rows, left=[3 + len(names)])
    return [*lines, "x: its steps are in the average; j: joined here, with the result; -: not there"]


def _mark(name: str, members: Sequence[str], digests: dict[str, str]) -> str:
    return "x" if name in members else "j" if name in digests else "-"


def _events(record: Record) -> list[str]:
    lines = []
    if recovery := record.recovery():
        victim = record.victim
        assert victim is not None
        told = ", ".join(f"{s * 1e3:.1f}" for s in recovery.told_s) or "not before the next reduction"
        lines += [
            f"kill -9 of {victim.name} in the middle of window {recovery.window}",
            f"  survivors knew after {told} ms, without waiting for anything",
            f"  window {recovery.window} was committed {recovery.committed_s:.2f} s later, with every step",
            f"  its reduction took {recovery.reduction_s * 1e3:.1f} ms in {_times(recovery.attempts)}, "
            f"others {recovery.usual_reduction_s * 1e3:.1f} ms",
        ]
    if join := record.join():
        lines += [
            f"{join.name} joined after window {join.window}",
            f"  waited {join.waited_s:.2f} s at the door for the end of the window",
            f"  then was admitted in {join.admitted_s * 1e3:.1f} ms and had the shared state "
            f"{join.state_s * 1e3:.1f} ms later",
        ]
    return lines


def _times(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


def _traffic(record: Record) -> list[str]:
    rows: list[list[object]] = [
        ["peer", "windows", "sent in reductions", "shared state", "data-parallel would send", "ratio"]
    ]
    rows += [_traffic_row(traffic) for traffic in record.traffic()]
    note = "data-parallel: 2 (P - 1) / P x 4 bytes x parameters, in each of the peer's steps"
    return [*table(rows), note]


def _traffic_row(traffic: Traffic) -> list[object]:
    ratio = f"1 / {traffic.data_parallel / traffic.sent:.1f}" if traffic.sent else ""
    sent, state = f"{traffic.sent / MB:.2f} MB", f"{traffic.state_sent / MB:.2f} MB"
    return [traffic.name, traffic.windows, sent, state, f"{traffic.data_parallel / MB:.1f} MB", ratio]


def _proof(record: Record, faults: Sequence[str]) -> list[str]:
    rows = record.rows()
    seconds = time.monotonic() - record.began_at
    first = f"{record.parameters:,} parameters, {record.corpus_bytes / MB:.1f} MB of text ({record.corpus})"
    if faults:
        return [f"{first}, {seconds:.0f} s", "FAILED:", *(f"  {fault}" for fault in faults)]
    compared = sum(len(row.digests) for row in rows)
    fell = f"loss {rows[0].held_out:.4f} -> {rows[-1].held_out:.4f}"
    return [
        f"{first}, {fell}, {seconds:.0f} s",
        f"ALL EQUAL: {compared} digests of {len(rows)} windows; in each, all peers hold the same bits",
    ]


def _picture(record: Record) -> list[str]:
    path = record.options.png
    if not path or not record.rows():
        return ["no picture"]
    if importlib.util.find_spec("matplotlib") is None:
        return ["no picture: pip install 'pccl-py[demo]' for matplotlib"]
    from .plot import draw

    draw(record, path)
    return [f"picture: {path}"]
