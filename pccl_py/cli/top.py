"""`python -m pccl_py top [URL]`: what a master's dashboard shows, in a terminal."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from ..errors import ConnectError, UsageError
from . import tables
from .numbers import parsed

URL = "http://127.0.0.1:48149"
EVENTS_SHOWN, FAILURES_SHOWN = 8, 4
REPORT_BYTES_MAX = 64 << 20


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise ValueError
    return value


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "top",
        help="watch the runs of a master",
        description="Shows what `python -m pccl_py master --http` serves, until Ctrl-C.",
    )
    parser.add_argument("url", nargs="?", default=URL, help=f"of the dashboard (default {URL})")
    parser.add_argument("--once", action="store_true", help="show it once, and end")
    parser.add_argument("--json", action="store_true", help="the report as one object per line")
    parser.add_argument(
        "--every-s",
        type=parsed(_above_zero),
        default=1.0,
        metavar="S",
        help="seconds between looks (default 1)",
    )


def run(args: argparse.Namespace) -> int:
    url = args.url if "://" in args.url else f"http://{args.url}"
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"{args.url}: it is an http:// address, as `master --http` prints it")
    try:
        while True:
            report = look(url)
            if args.json:
                print(json.dumps(report), flush=True)
            else:
                clear = "\033[2J\033[H" if sys.stdout.isatty() and not args.once else ""
                print(clear + text(report), flush=True)
            if args.once:
                return 0
            time.sleep(args.every_s)
    except KeyboardInterrupt:
        return 0


def look(url: str) -> dict[str, Any]:
    """The report of a dashboard. Raises ConnectError."""
    try:
        with urlopen(url.rstrip("/") + "/status.json", timeout=5) as answer:
            found = json.loads(answer.read(REPORT_BYTES_MAX))
    except HTTPError as error:
        raise ConnectError(
            f"{url} answers {error.code}: {error.read(500).decode(errors='replace')}"
        ) from None
    except (URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", error)
        hint = "a master serves one with `python -m pccl_py master --http 127.0.0.1:48149`"
        raise ConnectError(f"no dashboard at {url}: {why}; {hint}") from None
    if not isinstance(found, dict) or not {"runs", "events"} <= found.keys():
        raise ConnectError(f"{url} is not a master's dashboard")
    return found


def text(report: dict[str, Any]) -> str:
    """What a report says, in lines."""
    lines: list[str] = []
    for name, run in report["runs"].items():
        view = ".".join(map(str, run["view"]))
        lines.append(
            f"{'run ' + _plain(name) if name else 'run'}: {len(run['members'])} members, view {view}, "
            f"{run['waiting']} islands at the door, {run['commits']} commits, {run['failures']} failures, "
            f"{run['removed']} peers gone, master {run['phase']}"
        )
        if run["members"]:
            lines.append(tables.columns([MEMBER_HEAD, *map(_member, run["members"])]))
        for group, ring in run["rings"].items():
            lines.append(f"ring of group {group}: " + " -> ".join(map(str, ring)))
        if run["operations"]:
            lines.append(tables.columns([OPERATION_HEAD, *map(_operation, run["operations"])]))
        for age_s, kind, why in run["recent_failures"][:FAILURES_SHOWN]:
            lines.append(f"{age_s:.0f} s ago, {kind}: {_plain(why)}")
        lines.append("")
    for at, of, what in report["events"][-EVENTS_SHOWN:]:
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        lines.append(f"{clock} {'run ' + _plain(of) + ': ' if of else ''}{_plain(what)}")
    return "\n".join(lines)


MEMBER_HEAD = ("peer", "island", "group", "role", "host", "state", "waits in", "figures")
OPERATION_HEAD = ("call", "name", "age", "done", "kept waiting by")


def _member(member: dict[str, Any]) -> tuple[str, ...]:
    state = "alive"
    if not member["connected"]:
        state = "connection lost"
    elif member["silent_s"] >= 2:
        state = f"silent for {member['silent_s']:.1f} s"
    figures = ", ".join(f"{_plain(name)}={value:g}" for name, value in member.get("figures", {}).items())
    host = f"{_plain(member['host'])} ({member['process']})"
    return (
        str(member["peer"]), _plain(member["island"]), str(member["group"]), member["role"], host, state,
        member["waits_in"], figures,
    )  # fmt: skip


def _operation(operation: dict[str, Any]) -> tuple[str, ...]:
    why = "; ".join(f"peer {peer}: {what}" for peer, _, _, what in operation["hindrances"])
    done = f"{operation['done']} of {operation['voters']}"
    return operation["call"] or "?", operation["name"], f"{operation['age_s']:.1f} s", done, why


def _plain(name: str) -> str:
    """Names come from peers: none of them moves the terminal's cursor."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name))
