"""Rows of `bench all_reduce` as a table like that of nccl-tests; printed row by row, as they come."""

from __future__ import annotations

from .all_reduce import PLACES, Row, Timed

_OURS = (
    f"{'bytes':>12} {'place':>12} {'ops':>4} {'seconds':>10} {'algbw':>6} {'busbw':>6} {'cpu s':>9} {'ok':>3}"
    f" {'other':>5}"
)
_THEIRS = f" | {'seconds':>10} {'algbw':>6} {'busbw':>6} {'cpu s':>9} {'ok':>3} | {'ratio':>5}"


def head(row: Row) -> str:
    setting = row.setting
    lines = [
        f"# all_reduce, sum of float32, {setting.peers} peers on this host, each a process; every"
        " operation commits through the master",
        f"# transport {setting.transport}, links {setting.links}, congestion control {setting.congestion_control},"
        f" network namespace: {setting.namespace}",
        "# seconds: median over operations of the slowest peer; algbw, busbw in GB/s, busbw = 2(P-1)/P algbw;"
        " cpu s: of all peers, per operation",
        "# other: part of the machine's CPU time that other processes used meanwhile",
    ]
    title = _OURS
    if row.against is not None:
        lines.append(
            f"# right of the bar: {setting.against}, in place, congestion control {setting.default};"
            " ratio: its seconds / ours"
        )
        title += _THEIRS
    return "\n".join([*lines, title])


def line(row: Row) -> str:
    text = f"{row.size:>12} {PLACES[row.way]:>12} {row.ours.operations:>4}"
    text += f"{_cells(row, row.ours)} {row.others_cpu:>5.0%}"
    if row.against is not None:
        text += f" |{_cells(row, row.against)} | {row.ratio:>5.2f}"
    return text


def _cells(row: Row, timed: Timed) -> str:
    algbw, busbw = row.bandwidths(timed)
    right = "yes" if timed.correct else "NO"
    return f" {timed.seconds:>10.6f} {algbw:>6.2f} {busbw:>6.2f} {timed.cpu_seconds:>9.6f} {right:>3}"
