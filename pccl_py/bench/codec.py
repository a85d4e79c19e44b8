"""The quantization codec on one core, a part of `bench quantized`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .crew import Crew
from .kernels_worker import TRIALS, KernelsWorker
from .plot import Bar
from .report import titles
from .units import bytes_text

WAYS = ("encode", "decode", "add")


@dataclass(frozen=True)
class Row:
    """Speeds in bytes of float32 elements per second, on one core. `encoded`: bytes of the codes."""

    size: int
    kind: str
    level: str
    speeds: dict[str, float]
    encoded: int
    right: bool

    def record(self) -> dict[str, Any]:
        record = {"bench": "codec", "bytes": self.size, "dtype": "float32", "quantization": self.kind}
        record |= {"level": self.level, "bytes_encoded": self.encoded}
        return record | {f"{way}_gbs": self.speeds[way] / 1e9 for way in WAYS} | {"correct": self.right}

    def head(self) -> str:
        return "\n".join(
            [
                "# codec on one core, float32; GB/s of the elements' bytes, median; add: decode and add to a"
                " sum; x fewer: bytes of elements / of codes",
                titles("bytes:12 kind:6 level:7 encode:7 decode:7 add:7 x_fewer:7 ok:3"),
            ]
        )

    def line(self) -> str:
        speeds = " ".join(f"{self.speeds[way] / 1e9:>7.2f}" for way in WAYS)
        fewer, right = self.size / self.encoded, "yes" if self.right else "NO"
        return f"{self.size:>12} {self.kind:>6} {self.level:>7} {speeds} {fewer:>7.2f} {right:>3}"

    def bar(self) -> Bar:
        speeds = {way: self.speeds[way] / 1e9 for way in WAYS}
        return Bar(f"{self.kind} {self.level}, {bytes_text(self.size)}", speeds, "GB/s of float32, one core")


def measure(kinds: Sequence[str], sizes: Sequence[int], trials: int = TRIALS) -> Iterator[Row]:
    """Rows in the order of sizes and kinds, on the fastest instruction set; its codes are checked against
    those of all others."""
    with Crew() as crew:
        worker = crew.start("the worker", KernelsWorker)
        levels = worker.call("instruction_sets")
        for size in sizes:
            for kind in kinds:
                found = worker.call("code", size=size, kind=kind, levels=levels, trials=trials)
                best = levels[-1]
                speeds = {way: found["speeds"][f"{way} {best}"] for way in WAYS}
                right = found["right"] == levels
                yield Row(size, kind, best, speeds, found["encoded"], right)
