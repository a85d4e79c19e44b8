"""One process per method, one after the other on one disk; medians, and ratios to the others."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ..plot import Bar
from ..report import titles
from ..units import GIB, bytes_text

OURS = ("ours", "ours_quarter")
GROUPS = {
    "dcp": ("dcp", "dcp_staged"),
    "torch_checkpointing": ("torch_checkpointing",),
    "torch": ("torch",),
    "safetensors": ("safetensors",),
}
PACKAGES = ("torch_checkpointing", "safetensors")  # of their own
WORKER_SECONDS = 900
HEAD = titles(
    "method:14 state:8 cores:5 blocked_ms:10 first_lost_s:12 lost_s:7 durable_s:9 load_s:7 extra_MiB:9 "
    "cpu_s/GiB:9 each_x:6"
)


_NOT_TOLD = ("ratios", "right", "raw_write_s", "raw_read_s")  # or elsewhere


@dataclass(frozen=True, slots=True)
class CkptRow:
    """Medians over the saves after the first; `first_lost_s` of that one. Times in seconds.

    lost_s    what the training lost by one save: the call, and what its steps took longer until it was
              durable
    raw_write_s, raw_read_s    a plain O_DIRECT writer and reader of as many bytes, in turns; 0: none
    each_s    some iterations with a save of each, until the last is durable; `plain_s`: as many without
    ratios    for each other method: how many times ours is sooner or cheaper (only in the row of "ours")
    """

    method: str
    bytes: int
    threads: int
    blocked_s: float
    first_lost_s: float
    lost_s: float
    durable_s: float
    load_s: float
    extra_bytes: int
    cpu_s: float
    each_s: float
    plain_s: float
    right: bool
    raw_write_s: float = 0.0
    raw_read_s: float = 0.0
    ratios: dict[str, dict[str, float]] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        words = {name: getattr(self, name) for name in self.__slots__ if name not in _NOT_TOLD}
        return {"bench": "ckpt", **words, **self.ratios, "right": self.right}

    def head(self) -> str:
        return HEAD

    def line(self) -> str:
        per_gib = self.cpu_s * GIB / self.bytes
        text = (
            f"{self.method:>14} {bytes_text(self.bytes >> 20 << 20):>8} {self.threads:5} "
            f"{self.blocked_s * 1e3:10.2f} {self.first_lost_s:12.3f} {self.lost_s:7.3f} "
            f"{self.durable_s:9.2f} "
            f"{self.load_s:7.2f} {self.extra_bytes >> 20:9} {per_gib:9.2f} "
            f"{self.each_s / self.plain_s:6.2f}" + ("" if self.right else "  WRONG")
        )
        for other, ratios in self.ratios.items():
            text += f"\n{'':>15}against {other}: " + ", ".join(
                f"{k[6:]} {v:.1f} x" for k, v in ratios.items()
            )
        return text

    def bar(self) -> Bar:
        values = {"lost": self.lost_s, "durable": self.durable_s, "cold load": self.load_s}
        return Bar(f"{self.method}, {bytes_text(self.bytes >> 20 << 20)}", values, "s")


@dataclass(frozen=True, slots=True)
class RawRow:
    """A plain O_DIRECT writer and reader of as many bytes, in turns with ours: what the disk does."""

    bytes: int
    write_s: float
    read_s: float
    durable_share: float
    load_share: float
    right: bool = True

    def record(self) -> dict[str, Any]:
        return {"bench": "ckpt", "method": "raw"} | {name: getattr(self, name) for name in self.__slots__}

    def head(self) -> str:
        return HEAD

    def line(self) -> str:
        return (
            f"{'raw O_DIRECT':>14} {bytes_text(self.bytes >> 20 << 20):>8}: written in {self.write_s:.2f} s, "
            f"read in {self.read_s:.2f} s; ours reaches {self.durable_share:.0%} and {self.load_share:.0%} "
            "of that speed"
        )

    def bar(self) -> Bar:
        return Bar("raw O_DIRECT", {"durable": self.write_s, "cold load": self.read_s}, "s")


def measure(
    sizes: Sequence[int], against: Sequence[str], threads: Sequence[int], repeats: int, folder: str | None
) -> Iterator[CkptRow | RawRow]:
    """Others first, so that the rows of ours can name the ratios."""
    unknown = [name for name in against if name not in GROUPS]
    if unknown:
        raise UsageError(f"--against {','.join(unknown)}: of {', '.join(GROUPS)}")
    if absent := [name for name in against if name in PACKAGES and find_spec(name) is None]:
        raise UsageError(f"--against {','.join(absent)}: not installed; pip install {' '.join(absent)}")
    for size in sizes:
        for cores in threads:
            rows: dict[str, CkptRow] = {}
            methods = [method for name in against for method in GROUPS[name]]
            for method in (*methods, *reversed(OURS)):
                with tempfile.TemporaryDirectory(prefix="pccl-ckpt-", dir=folder) as place:
                    row = _one(method, size, cores, repeats, Path(place))
                rows[method] = row if method != "ours" else _with_ratios(row, rows)
                yield rows[method]
            yield _raw(rows["ours"])


def _one(method: str, size: int, threads: int, repeats: int, folder: Path) -> CkptRow:
    command = [
        sys.executable,
        "-m",
        "pccl_py.bench.ckpt.worker",
        method,
        str(size),
        str(threads),
        str(repeats),
    ]
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, timeout=WORKER_SECONDS, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or len(lines) != repeats + 2:
        raise RuntimeError(f"the worker for {method} failed ({done.returncode}): {done.stderr[-2000:]}")
    first, saves, last = lines[0], lines[1:-1], lines[-1]

    def median(name: str) -> float:
        return statistics.median(float(save[name]) for save in saves)

    return CkptRow(
        method,
        last["bytes"],
        threads,
        median("blocked_s"),
        first["lost_s"],
        median("lost_s"),
        median("durable_s"),
        statistics.median(last["loads"]),
        last["extra_bytes"],
        median("cpu_s"),
        last["each_s"],
        last["plain_s"],
        last["right"],
        _median(last["raw_writes"]),
        _median(last["raw_reads"]),
    )


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds) if seconds else 0.0


def _with_ratios(row: CkptRow, rows: dict[str, CkptRow]) -> CkptRow:
    """To the best of each method's modes, figure by figure."""
    ratios: dict[str, dict[str, float]] = {}
    for name, methods in GROUPS.items():
        others = [rows[method] for method in methods if method in rows]
        if not others:
            continue
        ratios[name] = {
            f"ratio_{what}": round(
                min(getattr(o, attribute) for o in others) / max(getattr(row, attribute), 1e-4), 2
            )
            for what, attribute in (
                ("blocked", "blocked_s"),
                ("lost", "lost_s"),
                ("first_lost", "first_lost_s"),
                ("durable", "durable_s"),
                ("load", "load_s"),
                ("cpu", "cpu_s"),
                ("each", "each_s"),
            )
        }
    return CkptRow(**{name: getattr(row, name) for name in row.__slots__ if name != "ratios"}, ratios=ratios)


def _raw(ours: CkptRow) -> RawRow:
    write_s, read_s = ours.raw_write_s, ours.raw_read_s
    return RawRow(ours.bytes, write_s, read_s, write_s / ours.durable_s, read_s / ours.load_s)
