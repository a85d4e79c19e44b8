"""`python -m pccl_py bench NAME`: measurements, alone or against others."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..bench import plot, wan
from ..errors import NotBuilt
from . import bench_figures, bench_rows
from .bench_arguments import CANNOT_MEASURE
from .failures import tell


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "bench",
        help="measure, alone or against others",
        description="Starts a master and its peers as processes on this host, measures, and checks values. "
        f"The exit status is 1 where a value was wrong or a process failed, and {CANNOT_MEASURE} for what "
        "cannot be measured here.",
    )
    benches = parser.add_subparsers(dest="bench", metavar="NAME", required=True)
    bench_rows.add_all(benches)
    bench_figures.add_all(benches)


def run(args: argparse.Namespace) -> int:
    if args.plot is not None:
        plot.check(args.plot)
    try:
        with _sigterm_as_ctrl_c():
            return int(args.run_bench(args))
    except (wan.CannotMeasure, NotBuilt) as error:
        tell(f"bench {args.bench}", error, as_json=args.json)
        return CANNOT_MEASURE


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """What was started beside a bench's processes, as keepers are, ends with it."""
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
