"""`python -m pccl_py ckpt`: list, check, compare and convert checkpoints. Needs no compiled core."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..checkpoint.remote_url import is_url

Run = Callable[[argparse.Namespace], int]


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "ckpt",
        help="list, check, compare and convert checkpoints",
        description="PATH is a folder of checkpoints (its newest complete step is meant), a step's folder, "
        "or where it says so a safetensors file; ls, inspect, verify and gc take URLs such as s3://bucket/run7.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, about: str, *paths: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        for path in paths:
            action.add_argument(path, type=_place, metavar=path.upper())
        action.set_defaults(option=[])
        return action

    for action in (
        add("ls", "list the steps of a folder", "path"),
        add("inspect", "show what a step (or a safetensors file) holds", "path"),
        add("verify", "read every byte of a folder's steps, or of one, and name what is damaged", "path"),
        add("diff", "compare two steps; status 1 where they differ", "first", "second"),
    ):
        action.add_argument("--json", action="store_true", help="objects of JSON, one per line")
    for name in ("inspect", "verify"):
        actions.choices[name].add_argument("--step", type=int, help="of a folder of steps, this one")
    gc = add("gc", "retire the steps of a folder that need not stay, and what crashes left", "path")
    gc.add_argument("--keep", type=int, required=True, help="so many newest steps stay")
    gc.add_argument("--keep-every", type=int, help="steps that this divides stay, too")
    gc.add_argument("--force", action="store_true", help="of a URL whose run was killed")
    for name in ("ls", "inspect", "verify", "gc"):
        actions.choices[name].add_argument(
            "--option", action="append", metavar="KEY=VALUE", help="of a URL's store: endpoint_url=..."
        )
    again = add("reshard", "write a step anew, in another number of shard files", "path", "target")
    again.add_argument("--shards", type=int, required=True, help="that number")
    again.add_argument("--step", type=int, help="of a folder of steps, this one")
    for action in (gc, again):
        action.add_argument("--json", action="store_true", help="an object of JSON at the end")
    add("format", "print the one page that describes the format")
    _add_conversions(add)


def _add_conversions(add: Callable[..., argparse.ArgumentParser]) -> None:
    inwards = add(
        "import",
        "make a step from a DCP folder, a safetensors file or folder, or a torch.save file",
        "source",
        "path",
    )
    inwards.add_argument("--step", type=int, required=True, help="the number that it gets")
    inwards.add_argument("--part", help="put all of it under this part of the state")
    inwards.add_argument(
        "--skip", action="append", default=[], metavar="NAME", help="leave out what is called so, or below it"
    )
    outwards = add("export", "write a step in another format, whole tensors", "path", "target")
    outwards.add_argument("--to", choices=("safetensors", "torch", "dcp"), required=True)
    outwards.add_argument("--step", type=int, help="of a folder of steps, this one")
    outwards.add_argument("--part", help="this part of the state alone, without its name")
    for action in (inwards, outwards):
        action.add_argument("--json", action="store_true", help="an object of JSON at the end")


def _place(text: str) -> Path | str:
    """A path, or the URL of a remote."""
    return text if is_url(text) else Path(text)


def run(args: argparse.Namespace) -> int:
    if isinstance(getattr(args, "path", None), str):
        from . import ckpt_remote

        return ckpt_remote.run(args)
    from . import ckpt_change, ckpt_check, ckpt_convert, ckpt_show

    actions: dict[str, Run] = {
        "ls": ckpt_show.ls,
        "inspect": ckpt_show.inspect,
        "format": ckpt_show.show_format,
        "verify": ckpt_check.verify,
        "diff": ckpt_check.diff,
        "gc": ckpt_change.gc,
        "reshard": ckpt_change.reshard,
        "import": ckpt_convert.import_,
        "export": ckpt_convert.export,
    }
    return actions[args.action](args)
