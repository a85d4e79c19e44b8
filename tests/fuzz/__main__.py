"""See tests/fuzz/__init__.py. Exit status 0: no decoder did what it must not."""

from __future__ import annotations

import argparse
import os
import sys

from .campaign import CORPUS, Campaign, Fault, write_corpus
from .targets import TARGETS

KEPT_BYTES = 1024  # larger inputs are not worth their place
KEPT_MAX = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("own", "atheris"), default="own")
    parser.add_argument("--keep", action="store_true", help=f"adds what took a new way to {CORPUS.name}")
    args = parser.parse_args()
    if unknown := set(args.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    chosen = args.targets or list(TARGETS)
    if args.engine == "atheris":
        return _atheris(chosen, args.seconds)
    return max(_own(name, args.seconds, args.seed, args.keep) for name in chosen)


def _own(name: str, seconds: float, seed: int, keep: bool) -> int:
    campaign = Campaign(name, TARGETS[name], seed)
    known = len(campaign.pool) - len(TARGETS[name].seeds)
    try:
        campaign.replay()
        campaign.run(sys.maxsize, seconds, guided=True)
    except Fault as fault:
        print(f"FAULT {fault}")
        return 1
    finally:
        print(f"{name:16} {campaign.runs} runs, {campaign.ways} ways, {len(campaign.kept)} inputs kept")
    if keep:
        small = [data for data in campaign.kept if len(data) <= KEPT_BYTES]
        old = campaign.pool[len(TARGETS[name].seeds) :][:known]
        write_corpus(name, (old + small)[-KEPT_MAX:])
    return 0


def _atheris(names: list[str], seconds: float) -> int:
    """Each target in a process of its own: the engine never returns."""
    worst = 0
    for name in names:
        pid = os.fork()
        if pid == 0:
            _atheris_one(name, seconds)
        worst = max(worst, int(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0))
    return worst


def _atheris_one(name: str, seconds: float) -> None:
    import atheris

    atheris.instrument_all()
    campaign = Campaign(name, TARGETS[name])
    campaign.replay()
    words = [
        f"tests.fuzz {name}",
        f"-max_total_time={round(seconds)}",
        "-max_len=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup(words, lambda data: campaign.one(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
