"""`bench kernels`: the reduction kernels of each instruction set, on one core, against memcpy and numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..arguments import OPS
from ..errors import UsageError
from ..tensors import DTYPE_CODES
from .crew import Crew
from .kernels_worker import TRIALS, KernelsWorker
from .plot import Bar
from .report import titles
from .units import bytes_text

REDUCTIONS = tuple(op for op in OPS if op != "avg")  # which adds, and divides once at its end


@dataclass(frozen=True)
class Options:
    """`sizes`: of one operand. Empty `levels`: all that this CPU runs."""

    sizes: Sequence[int]
    dtypes: Sequence[str] = tuple(DTYPE_CODES)
    ops: Sequence[str] = REDUCTIONS
    levels: Sequence[str] = ()
    repeats: int = TRIALS


@dataclass(frozen=True)
class Row:
    """Speeds in bytes of one operand per second. `others`: of memcpy and numpy in the same run."""

    size: int
    dtype: str
    op: str
    level: str
    speed: float
    others: dict[str, float]
    right: bool

    def record(self) -> dict[str, Any]:
        record = {"bench": "kernels", "bytes": self.size, "dtype": self.dtype, "op": self.op}
        record |= {"level": self.level, "seconds": self.size / self.speed, "gbs": self.speed / 1e9}
        record |= {f"{name}_gbs": speed / 1e9 for name, speed in self.others.items()}
        record |= {f"{name}_ratio": self.speed / speed for name, speed in self.others.items()}
        return record | {"correct": self.right}

    def head(self) -> str:
        return "\n".join(
            [
                "# kernels, out = a op b on one core; GB/s of one operand's bytes, median; from 4 MiB on"
                " written past the caches",
                "# memcpy and numpy in the same run, in turns; ratios: this kernel's speed / theirs",
                titles("bytes:12 dtype:9 op:5 level:7 GB/s:7 ok:3 | memcpy:7 numpy:7 | x_memcpy:8 x_numpy:7"),
            ]
        )

    def line(self) -> str:
        text = f"{self.size:>12} {self.dtype:>9} {self.op:>5} {self.level:>7} {self.speed / 1e9:>7.2f}"
        text += f" {'yes' if self.right else 'NO':>3} |"
        speeds = [self.others.get(name) for name in ("memcpy", "numpy")]
        text += "".join(f" {'-' if s is None else f'{s / 1e9:.2f}':>7}" for s in speeds) + " |"
        ratios = [None if s is None else self.speed / s for s in speeds]
        return text + f" {_ratio(ratios[0]):>8} {_ratio(ratios[1]):>7}"

    def bar(self) -> Bar:
        others = {name: speed / 1e9 for name, speed in self.others.items()}
        label = f"{self.dtype} {self.op}, {bytes_text(self.size)}"
        return Bar(label, {self.level: self.speed / 1e9} | others, "GB/s of one operand, one core")


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def measure(options: Options) -> Iterator[Row]:
    """Rows in the order of sizes, dtypes, ops and levels. Raises UsageError or WorkerFailed."""
    _check(options)
    with Crew() as crew:
        worker = crew.start("the worker", KernelsWorker)
        levels = list(options.levels) or worker.call("instruction_sets")
        for size in options.sizes:
            for dtype in options.dtypes:
                for op in options.ops:
                    found = worker.call(
                        "reduce", size=size, dtype=dtype, op=op, levels=levels, trials=options.repeats
                    )
                    speeds = found["speeds"]
                    others = {name: speeds[name] for name in ("memcpy", "numpy") if name in speeds}
                    for level in levels:
                        right = level in found["right"]
                        yield Row(size, dtype, op, level, speeds[level], others, right)


def _check(options: Options) -> None:
    for what, given, known in (
        ("dtype", options.dtypes, DTYPE_CODES),
        ("op", options.ops, REDUCTIONS),
    ):
        if unknown := [name for name in given if name not in known]:
            raise UsageError(f"{what} {unknown[0]!r}: it is one of {', '.join(known)}")
    if any(size % 8 for size in options.sizes):
        raise UsageError("sizes are multiples of 8 bytes, of the largest element")
