"""`bench erasure`: Reed-Solomon on memory, against memcpy and other codecs on the same bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..erasure.memory import BLOCKS_MAX
from ..errors import UsageError
from .crew import Crew
from .erasure_others import OTHERS, missing
from .erasure_worker import ErasureWorker
from .plot import Bar
from .report import titles
from .units import bytes_text

REPEATS = 5
WITHIN_S = 600.0


@dataclass(frozen=True)
class Options:
    """`size`: of the data of a stripe. `level`: an instruction set, or the fastest."""

    size: int
    codes: Sequence[tuple[int, int]]
    threads: Sequence[int] = (1,)
    against: Sequence[str] = ("memcpy",)
    level: str = ""
    repeats: int = REPEATS


@dataclass(frozen=True)
class Row:
    """Speeds in bytes of data per second, best trials."""

    what: str
    size: int
    k: int
    m: int
    threads: int
    level: str
    speeds: dict[str, float]
    isal: str | None
    right: bool

    def ratio(self, other: str) -> float | None:
        return self.speeds["ours"] / self.speeds[other] if other in self.speeds else None

    def record(self) -> dict[str, Any]:
        record = {"bench": "erasure", "what": self.what, "bytes": self.size, "k": self.k, "m": self.m}
        record |= {"threads": self.threads, "level": self.level, "gbps": self.speeds["ours"] / 1e9}
        for other in OTHERS:
            if (ratio := self.ratio(other)) is not None:
                record |= {f"{other}_gbps": self.speeds[other] / 1e9, f"ratio_{other}": ratio}
        return record | {"isal_version": self.isal, "correct": self.right}

    def head(self) -> str:
        isal = f"; isal: {self.isal}" if self.isal else ""
        return "\n".join(
            [
                "# erasure code on memory; GB/s of the data's bytes, best trial in turns with the others; "
                "decode: min(m, k) blocks of data lost",
                f"# ratios: ours / theirs; pyeclib and zfec: 64 MiB, one thread (they have one){isal}",
                titles(
                    "what:16 data:8 k+m:5 threads:7 level:12 GB/s:7 ok:3 | "
                    + " ".join(f"{name}:7 x:5" for name in OTHERS)
                ),
            ]
        )

    def line(self) -> str:
        text = (
            f"{self.what:>16} {bytes_text(self.size >> 20 << 20 or self.size):>8} {f'{self.k}+{self.m}':>5} "
        )
        text += f"{self.threads:>7} {self.level:>12} {self.speeds['ours'] / 1e9:>7.2f} "
        text += f"{'yes' if self.right else 'NO':>3} |"
        for other in OTHERS:
            ratio = self.ratio(other)
            text += " " + (
                f"{'-':>7} {'-':>5}" if ratio is None else f"{self.speeds[other] / 1e9:>7.2f} {ratio:>5.2f}"
            )
        return text

    def bar(self) -> Bar:
        label = f"{self.what} {self.k}+{self.m}, {self.threads} thr"
        return Bar(label, {name: speed / 1e9 for name, speed in self.speeds.items()}, "GB/s of data")


def measure(options: Options) -> Iterator[Row]:
    """Rows in the order of codes and threads. Raises UsageError or WorkerFailed."""
    against = [name for name in options.against if not _said_missing(name)]
    for k, m in options.codes:
        if k < 1 or m < 1 or k + m > BLOCKS_MAX or options.size < k * 4096:
            raise UsageError(f"code {k},{m}: 1 or more each, {BLOCKS_MAX} together, 4096 bytes per block")
        with Crew() as crew:
            worker = crew.start("the worker", ErasureWorker)
            levels = worker.call("levels")
            level = options.level or levels[-1]
            if level not in levels:
                raise UsageError(f"level {level!r}: this CPU has {', '.join(levels)}")
            worker.call("prepare", size=options.size, k=k, m=m, within=WITHIN_S)
            for threads in options.threads:
                found = worker.call(
                    "measure", level=level, threads=threads, against=against, repeats=options.repeats,
                    within=WITHIN_S,
                )  # fmt: skip
                for what, speeds in found["speeds"].items():
                    size, isal = found["bytes"], found["isal"]
                    yield Row(what, size, k, m, threads, level, speeds, isal, found["right"])


def _said_missing(name: str) -> bool:
    if name not in OTHERS:
        raise UsageError(f"against {name!r}: it is one of {', '.join(OTHERS)}")
    if reason := missing(name):
        print(f"# not measured: {reason}", file=sys.stderr)
    return reason is not None
