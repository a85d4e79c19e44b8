"""`python -m pccl_py demo`: trains a small GPT on peers that come and go, or is one of these peers."""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from ..demo.options import add_arguments, from_arguments
from ..errors import UsageError


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "demo",
        help="train a small GPT on peers that come and go",
        description="Without --master: starts a master and peers here, kills one, lets another one join, and "
        "compares the bits that they hold. With --master: is one peer of that master's run.",
    )
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("torch") is None:
        raise UsageError("the demonstration needs torch: pip install 'pccl-py[demo]'")
    options = from_arguments(args)
    if options.master is not None:
        from ..demo.peer import run_peer

        return run_peer(options)
    from ..demo.orchestrate import run_demo

    return run_demo(options)
