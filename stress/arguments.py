"""What is said to `python -m stress`: its commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pccl_py.bench.units import parse_tensor
from pccl_py.cli.numbers import above_zero, parsed, whole

from .checkpoint_savers import WAYS
from .churn_peer import SABOTAGE
from .oracles import PEERS_MAX
from .scenarios import SCENARIOS

PLACES_MAX = PEERS_MAX - 1  # churn fills one more now and then


def parser(about: str | None) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="python -m stress", description=about)
    commands = top.add_subparsers(dest="scenario", required=True)
    common = _common()

    def add(name: str, options: Callable[[argparse.ArgumentParser], None], text: str) -> None:
        options(commands.add_parser(name, parents=[common], help=text))

    commands.add_parser("list", help="what `run` can do to a run, and what it checks")
    add("run", _run, "one scenario of the list, with a report")
    add("churn", _churn, "kill, stop, leave and join at random")
    add("recovery", _recovery, "from each kill to the survivors' next result")
    add("pause", _pause, "a peer that is stopped is evicted")
    add("checkpoint", _checkpoint, "kill savers of checkpoints")
    add("snapshots", _snapshots, "kill and stop trainers and their keepers")

    net = commands.add_parser("net", help="the emulated network of tests and of `pccl_py bench wan`")
    net.add_argument("what", choices=["build"], help="compile its program, which its first use does else")
    return top


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--seed", type=int, help="replays the schedule of a run (default: a new one)")
    common.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    common.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="leave all logs there, tell everything that happened"
    )
    common.add_argument(
        "--hang-seconds", type=above_zero, default=15.0, metavar="S", help="no progress for so long is a hang"
    )
    return common


def _run(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", choices=tuple(SCENARIOS), metavar="SCENARIO", help=", ".join(SCENARIOS))
    command.add_argument("--minutes", type=above_zero, default=1.0)
    command.add_argument("--peers", type=whole(3, 8), default=4)
    command.add_argument("--report", type=Path, metavar="FILE.html", help="a page with plots, in one file")
    command.add_argument("--sabotage", choices=tuple(SABOTAGE), help=argparse.SUPPRESS)


def _churn(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seconds", type=above_zero, default=60.0)
    command.add_argument("--peers", type=whole(2, PLACES_MAX), default=4)
    command.add_argument("--kills", type=whole(0), help="SIGKILLs in all (default: two per second)")
    command.add_argument("--groups", type=whole(1), default=1, help="groups that the peers are divided into")
    command.add_argument(
        "--islands", type=parsed(grid), metavar="RxC", help="R islands of C ranks instead of peers"
    )
    command.add_argument(
        "--elements", type=parsed(bounds), default="1-262144", metavar="MIN-MAX", help="of one tensor"
    )
    command.add_argument(
        "--in-flight", type=whole(1), default=6, help="all-reduces at the same time, at most"
    )
    command.add_argument(
        "--transport", choices=("auto", "tcp", "shm", "cma", "mixed"), default="auto",
        help="between the peers; mixed: each peer another (default auto)",
    )  # fmt: skip
    command.add_argument("--sabotage", choices=tuple(SABOTAGE), help=argparse.SUPPRESS)


def _recovery(command: argparse.ArgumentParser) -> None:
    command.add_argument("--kills", type=whole(1), default=100)
    command.add_argument("--peers", type=whole(2, PEERS_MAX), default=3)
    command.add_argument(
        "--bytes", type=parsed(parse_tensor), default=4 << 20, help="reduced at a time; K, M and G are known"
    )
    command.add_argument("--forked-workers", type=whole(0), nargs="?", const=2, default=0, metavar="N",
                          help="each peer has forked N processes (2) that outlive it")  # fmt: skip


def _pause(command: argparse.ArgumentParser) -> None:
    command.add_argument("--rounds", type=whole(1), default=3)
    command.add_argument("--peers", type=whole(2, PEERS_MAX), default=3)
    command.add_argument("--bytes", type=parsed(parse_tensor), default=4 << 20)


def _checkpoint(command: argparse.ArgumentParser) -> None:
    command.add_argument("--kills", type=whole(1), default=100)
    command.add_argument(
        "--way", choices=sorted(WAYS), default="save",
        help="a Checkpointer; with a remote and lost folders; dcp.save through our door; `ckpt import`, "
        "`reshard` and `export` (default save)",
    )  # fmt: skip
    command.add_argument(
        "--sabotage", choices=("durable", "uploaded", "value", "hang"), help=argparse.SUPPRESS
    )


def _snapshots(command: argparse.ArgumentParser) -> None:
    command.add_argument("--patterns", type=whole(1), default=20, help="of who is struck, when and how")
    command.add_argument("--peers", type=whole(2, 8), default=4)
    command.add_argument("--parity", type=whole(1, 7), default=1)
    command.add_argument(
        "--phases", action="store_true", help="each phase once instead, with each of those struck in it"
    )
    command.add_argument("--sabotage", choices=("value",), help=argparse.SUPPRESS)


def grid(text: str) -> tuple[int, int]:
    """ "3x2": islands, and ranks of each."""
    islands, _, ranks = text.lower().partition("x")
    if not islands.isdecimal() or not ranks.isdecimal() or int(ranks) < 1:
        raise ValueError(f"{text!r}: it is RxC, like 3x2 for 3 islands of 2 ranks")
    if not 2 <= int(islands) <= PLACES_MAX:
        raise ValueError(f"{text!r}: it has 2 to {PLACES_MAX} islands")
    return int(islands), int(ranks)


def bounds(text: str) -> tuple[int, int]:
    """ "1-100": smallest and largest."""
    low, _, high = text.partition("-")
    if not low.isdecimal() or not (high or low).isdecimal() or not 1 <= int(low) <= int(high or low):
        raise ValueError(f"{text!r}: it is MIN-MAX, like 1-262144, with 1 <= MIN <= MAX")
    return int(low), int(high or low)
