"""What the benches' command lines have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from ..bench.group import SECURITY
from ..bench.transports import TRANSPORTS
from ..bench.units import bytes_text, parse_tensor, parse_tensors
from ..tensors import DTYPE_CODES
from .numbers import parsed, whole

CANNOT_MEASURE = 77  # the exit status of what was skipped
PEERS_MAX = 16
_peers = whole(2, PEERS_MAX)


def add(benches: Any, name: str, about: str, text: str = "") -> argparse.ArgumentParser:
    """A bench, with what all have."""
    bench: argparse.ArgumentParser = benches.add_parser(name, help=about, description=text or about)
    bench.add_argument("--json", action="store_true", help="one object per line")
    bench.add_argument("--plot", metavar="OUT.png", help="also a picture of the rows; needs matplotlib")
    return bench


def count(bench: argparse.ArgumentParser, flag: str, default: int, what: str) -> None:
    bench.add_argument(flag, type=whole(1), default=default, metavar="N", help=f"{what} (default {default})")


def peers(bench: argparse.ArgumentParser, default: int = 2) -> None:
    bench.add_argument(
        "--peers", type=_peers, default=default, metavar="N", help=f"processes (default {default})"
    )


def several_peers(bench: argparse.ArgumentParser, default: str) -> None:
    """A list of numbers: one run for each."""
    bench.add_argument(
        "--peers", type=_peers_list, default=default, metavar="LIST", help=f"processes (default {default})"
    )


def _peers_list(text: str) -> list[int]:
    return [_peers(part) for part in text.split(",")]


def size(bench: argparse.ArgumentParser, default: int) -> None:
    text = f"of the tensor (default {bytes_text(default)})"
    bench.add_argument("--size", type=parsed(parse_tensor), default=default, metavar="SIZE", help=text)


def sizes(bench: argparse.ArgumentParser, default: str, what: str = "of the tensors") -> None:
    text = f"{what}, with K, M, G (default {default})"
    bench.add_argument("--sizes", type=parsed(parse_tensors), default=default, metavar="LIST", help=text)


def number(bench: argparse.ArgumentParser, flag: str, default: float, what: str) -> None:
    bench.add_argument(flag, type=float, default=default, metavar="X", help=f"{what} (default {default:g})")


def repeats(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--repeats", type=whole(1), metavar="N", help="operations per size (default: by size)")


def dtype(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--dtype", choices=list(DTYPE_CODES), default="float32", help="of the elements")


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    """A list of some of them."""

    def parse(text: str) -> list[str]:
        for name in (several := text.split(",")):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r}: it is one of {', '.join(known)}")
        return several

    return parse


def against(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--against", choices=["gloo"], help="the same with torch.distributed, in place")
    bench.add_argument("--no-namespace", action="store_true", help="against others: run as it is")


def path(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--transport",
        choices=TRANSPORTS,
        default="auto",
        help="how our data travels: the library's choice, or one way. shm: tensors of pccl_py.empty()",
    )
    congestion_control(bench)


def security(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--security",
        choices=SECURITY,
        default="none",
        help="of our run. proved: by a secret that encrypts nothing, as torch groups draw it. encrypted: TLS",
    )


def congestion_control(bench: argparse.ArgumentParser) -> None:
    bench.add_argument(
        "--congestion-control",
        default="auto",
        metavar="NAME",
        help="auto: ours picks its own, others run on reno. default: ours picks its own, others run on the "
        "system's. system, or a name as cubic, reno, bbr: that for both",
    )


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Of peers, for benches without a group of their own."""
    ours = "auto" if args.congestion_control == "default" else args.congestion_control
    return {"transport": args.transport, "congestion_control": ours}
