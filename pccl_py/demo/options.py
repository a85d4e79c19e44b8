"""What the demonstration can be told, and when things happen in it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields

from ..errors import UsageError

PNG = "pccl_demo.png"
PEERS_MAX = 16
OPTIMIZERS = ("diloco", "local_sgd", "streaming", "async")
QUANTIZATIONS = ("none", "int8", "uint8", "int4", "fp8", "bf16")


@dataclass(frozen=True)
class Options:
    """Sizes are those of one peer; a window is `steps` inner steps. Windows are counted from 1.

    kill_in   the window in whose middle the last of the first peers is killed; 0: nobody is
    join_in   the window in whose middle one more peer knocks; 0: nobody does
    """

    master: str | None = None
    secret_file: str | None = None
    insecure: bool = False
    name: str = ""
    founders: int = 1
    peers: int = 3
    windows: int = 16
    steps: int = 60
    kill_in: int = 6
    join_in: int = 9
    text: tuple[str, ...] = ()
    batch: int = 16
    window_samples: int = 0
    context: int = 64
    width: int = 128
    layers: int = 2
    heads: int = 4
    lr: float = 2e-3
    optimizer: str = "diloco"
    quantization: str = "none"
    heterogeneous: bool = False
    outer_lr: float | None = None
    outer_momentum: float = 0.9
    threads: int = 1
    png: str = PNG
    plain: bool = False
    json: bool = False
    held: bool = False

    def check(self) -> None:
        for name in (
            "peers",
            "founders",
            "windows",
            "steps",
            "batch",
            "context",
            "layers",
            "heads",
            "threads",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} {getattr(self, name)}: at least 1")
        if self.heterogeneous and self.optimizer not in ("diloco", "local_sgd"):
            raise UsageError(
                f"--heterogeneous with --optimizer {self.optimizer}: diloco or local_sgd take it"
            )
        if self.window_samples < 0 or (self.window_samples and self.heterogeneous):
            text = "0, or how many passages all peers have in a window; not with --heterogeneous"
            raise UsageError(f"--window-samples {self.window_samples}: {text}")
        if self.width % self.heads:
            raise UsageError(f"--width {self.width} is no multiple of --heads {self.heads}")
        if self.master is None:
            self._check_schedule()

    def _check_schedule(self) -> None:
        if self.peers > PEERS_MAX:
            raise UsageError(f"--peers {self.peers}: at most {PEERS_MAX} on one machine")
        for name in ("kill_in", "join_in"):
            window = getattr(self, name)
            if not 0 <= window < self.windows:
                text = f"--{name.replace('_', '-')} {window}: from 0 (never) to {self.windows - 1}"
                raise UsageError(f"{text}, so that a window follows")
        if self.kill_in and self.peers < 2:
            raise UsageError("--peers 1 and a kill leave nobody: pass --kill-in 0 or more peers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    default = Options()
    run = parser.add_argument_group("where")
    run.add_argument("--master", metavar="HOST:PORT", help="be one peer of the run of this master")
    run.add_argument("--secret-file", metavar="FILE", help="the secret of that run")
    run.add_argument("--insecure", action="store_true", help="join another host's run without a secret")
    run.add_argument("--name", default="", help="how this peer is called in what is printed")
    run.add_argument("--founders", type=int, default=1, help="the run begins with so many peers")
    run.add_argument("--peers", type=int, default=default.peers, help="how many begin, without --master")
    when = parser.add_argument_group("what happens, without --master")
    when.add_argument(
        "--kill-in", type=int, default=default.kill_in, metavar="WINDOW", help="0: nobody is killed"
    )
    when.add_argument(
        "--join-in", type=int, default=default.join_in, metavar="WINDOW", help="0: nobody joins"
    )
    when.add_argument("--png", default=PNG, metavar="FILE", help=f"the picture; default {PNG}")
    training = parser.add_argument_group("training")
    help = "default: the sources of Python's standard library"
    training.add_argument("--text", nargs="+", default=(), metavar="FILE", help=help)
    training.add_argument("--windows", type=int, default=default.windows, help="outer steps")
    training.add_argument("--steps", type=int, default=default.steps, help="inner steps in a window")
    help = "passages in a window of all peers, of one order: each once; 0: every peer --batch random ones"
    training.add_argument(
        "--window-samples", type=int, default=default.window_samples, metavar="N", help=help
    )
    for name in ("batch", "context", "width", "layers", "heads", "threads"):
        training.add_argument(f"--{name}", type=int, default=getattr(default, name))
    training.add_argument("--lr", type=float, default=default.lr, help="of the inner AdamW")
    training.add_argument("--optimizer", choices=OPTIMIZERS, default=default.optimizer)
    training.add_argument("--quantization", choices=QUANTIZATIONS, default=default.quantization)
    help = "peers after the first are slower; steps by speed (diloco, local_sgd)"
    training.add_argument("--heterogeneous", action="store_true", help=help)
    help = "of diloco and streaming; default: the optimizer's own"
    training.add_argument("--outer-lr", type=float, default=default.outer_lr, help=help)
    training.add_argument(
        "--outer-momentum", type=float, default=default.outer_momentum, help="with --outer-lr"
    )
    show = parser.add_argument_group("output")
    show.add_argument("--plain", action="store_true", help="lines instead of a live view")
    show.add_argument("--json", action="store_true", help="with --master: one object per line")
    # Connects when a line comes on standard input, and ends when that is closed.
    show.add_argument("--held", action="store_true", help=argparse.SUPPRESS)


def from_arguments(args: argparse.Namespace) -> Options:
    values = {field.name: getattr(args, field.name) for field in fields(Options)}
    options = Options(**{**values, "text": tuple(values["text"])})
    options.check()
    return options


def to_arguments(options: Options) -> list[str]:
    """The command line that gives these options to a peer."""
    default, words = Options(), []
    for field in fields(Options):
        value = getattr(options, field.name)
        if value == getattr(default, field.name):
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if isinstance(value, tuple):
            words.extend(value)
        elif not isinstance(value, bool):
            words.append(str(value))
    return words
