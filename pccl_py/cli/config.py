"""`python -m pccl_py config`: every setting, its value, and where that comes from."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from typing import Any

from ..config import settings


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "config",
        help="show every setting, its value and where it comes from",
        description="Settings come from arguments, then from the environment, then from their defaults.",
    )
    parser.add_argument("--json", action="store_true", help="one object per line")


def run(args: argparse.Namespace) -> int:
    found = settings()
    if args.json:
        print("\n".join(json.dumps(asdict(setting)) for setting in found))
        return 0
    rows = [(setting.name, str(setting.value), setting.origin, setting.help) for setting in found]
    rows.insert(0, ("setting", "value", "from", "meaning"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, value, origin, meaning in rows:
        print(f"{name:{widths[0]}}  {value:>{widths[1]}}  {origin:{widths[2]}}  {meaning}")
    known = {setting.env for setting in found}
    if unknown := sorted(name for name in os.environ if name.startswith("PCCL_") and name not in known):
        print(f"\nnot a setting: {', '.join(unknown)}")
    return 0
