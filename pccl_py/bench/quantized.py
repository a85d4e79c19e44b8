"""`bench quantized`: averages in few bits, beside the same average of plain float32 in the same run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from ..quantization import KINDS
from .group import Group, Running, Setting, running
from .plot import Bar
from .quantized_peer import PLAIN, QuantizedPeer
from .report import titles
from .turns import Timed, repeats_of, take_turns
from .units import MIB, bytes_text


@dataclass(frozen=True)
class Options:
    sizes: Sequence[int]
    group: Group = field(default_factory=lambda: Group(peers=4))
    kinds: Sequence[str] = tuple(KINDS)
    repeats: int | None = None


@dataclass(frozen=True)
class Row:
    """`errors`: QuantizedPeer.errors; `alike`: all peers hold the same bits."""

    size: int
    kind: str
    timed: Timed
    plain: Timed
    errors: dict[str, Any]
    alike: bool
    setting: Setting
    others_cpu: float

    @property
    def right(self) -> bool:
        return self.timed.correct and self.alike

    @property
    def ratio(self) -> float:
        return self.plain.seconds / self.timed.seconds

    def record(self) -> dict[str, Any]:
        setting, errors = self.setting, self.errors
        record = {"bench": "quantized", "bytes": self.size, "place": "out of place", "dtype": "float32"}
        record |= {"peers": setting.peers, "quantization": self.kind, "others_cpu": round(self.others_cpu, 3)}
        record |= self.timed.measures(self.size, setting.peers, setting.transport, setting.congestion_control)
        record |= {"correct": self.right, "plain_seconds": self.plain.seconds, "ratio": self.ratio}
        record |= {"cpu_ratio": self.timed.cpu_seconds / max(self.plain.cpu_seconds, 1e-9)}
        record |= {"bytes_sent": self.timed.bytes_sent, "plain_bytes_sent": self.plain.bytes_sent}
        record |= {"error_max": errors["max"], "error_rms": errors["rms"]}
        record |= {"bound_max": errors["bound"], "bound_rms": errors["bound_rms"]}
        return record | {"bound_share": errors["share"], "same_bits": self.alike}

    def head(self) -> str:
        setting = self.setting
        return "\n".join(
            [
                f"# quantized, all_reduce, average of float32 out of place, {setting.peers} peers on a host",
                f"# transport {setting.transport}, congestion control {setting.congestion_control}",
                "# seconds: median over operations of the slowest peer; cpu s: of all peers; x plain: seconds"
                " of plain float32 / of this kind; MiB sent: by all peers",
                "# errors against the exact average, beside the largest bound of an element and that of the"
                " mean square; share: the largest part of its own bound that an element's error is",
                titles("bytes:12 kind:6 ops:4 seconds:10 x_plain:7 cpu_s:9 MiB_sent:8")
                + titles(" max_error:10 bound:9 rms_error:9 bound:9 share:5 ok:3 other:5"),
            ]
        )

    def line(self) -> str:
        timed, errors = self.timed, self.errors
        return (
            f"{self.size:>12} {self.kind:>6} {timed.operations:>4} {timed.seconds:>10.6f} {self.ratio:>7.2f}"
            f" {timed.cpu_seconds:>9.6f} {timed.bytes_sent / MIB:>8.1f} {errors['max']:>9.3g}"
            f" {errors['bound']:>9.3g} {errors['rms']:>9.3g} {errors['bound_rms']:>9.3g}"
            f" {errors['share']:>5.2f} {'yes' if self.right else 'NO':>3} {self.others_cpu:>5.0%}"
        )

    def bar(self) -> Bar:
        label = f"{bytes_text(self.size)}, P = {self.setting.peers}"
        kind = "float32" if self.kind == PLAIN else self.kind
        return Bar(label, {kind: self.timed.seconds * 1e3}, "ms per average")


def measure(options: Options) -> Iterator[Row]:
    """Rows in the order of sizes and kinds, plain float32 first. Raises UsageError or WorkerFailed."""
    if options.group.against is not None:
        raise UsageError("bench quantized compares with plain float32 of this library")
    if unknown := set(options.kinds) - set(KINDS):
        raise UsageError(f"kind {sorted(unknown)[0]!r}: it is one of {', '.join(KINDS)}")
    with running(options.group, QuantizedPeer) as run:
        for size in options.sizes:
            yield from _measure_size(run, options, size)


def _measure_size(run: Running, options: Options, size: int) -> Iterator[Row]:
    others = run.others_cpu()
    run.each("prepare", size=size)
    ways = [PLAIN, *options.kinds]
    timed = take_turns(run.workers, ways, options.repeats or max(5, repeats_of(size) // 3))
    share, setting = others.share(), run.setting()
    for way in ways:
        errors = run.each("errors", way=way)
        alike = len({error["digest"] for error in errors}) == 1
        yield Row(size, way, timed[way], timed[PLAIN], errors[0], alike, setting, share)
