"""`python -m pccl_py trace DUMPS... -o out.json`: recorded events of many peers as one timeline."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..observe.timeline import join, merge
from ..observe.trace_format import Trace, TraceError, read


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "trace",
        help="merge dumps of recorded events into one timeline",
        description="For chrome://tracing and ui.perfetto.dev: one process per peer.",
    )
    parser.add_argument("dumps", nargs="+", type=Path, help="files, or folders of *.pccltrace")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT.json")


def run(args: argparse.Namespace) -> int:
    paths = [path for given in args.dumps for path in _files(given)]
    if not paths:
        raise UsageError("no *.pccltrace there; PCCL_TRACE_DIR makes a peer keep one")
    traces: list[Trace] = []
    for path in paths:
        try:
            traces.append(read(path))
        except (TraceError, OSError) as error:
            print(f"left out: {error}", file=sys.stderr)
    if not traces:
        raise TraceError("none of these is a dump of recorded events")
    with open(args.output, "w", encoding="utf-8") as file:
        json.dump(merge(traces), file)
    for trace in join(traces):
        lost = f", {trace.lost} older ones overwritten" if trace.lost else ""
        print(f"peer {trace.peer} on {trace.host}: {len(trace.events)} events{lost}")
    print(f"wrote {args.output}")
    return 0


def _files(given: Path) -> list[Path]:
    return sorted(given.glob("*.pccltrace")) if given.is_dir() else [given]
