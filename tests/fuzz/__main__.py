"""See tests/fuzz/__init__.py. Exit status 0: no decoder did what it must not."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

KEPT_BYTES = 1024  # larger inputs are not worth their place
KEPT_MAX = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help="of tests/fuzz/targets.py (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=("own", "atheris"), default="own")
    parser.add_argument("--keep", action="store_true", help="adds what took a new way to tests/corpus")
    args = parser.parse_args()
    decoders = _watched() if args.engine == "atheris" else _imported()
    targets: dict[str, object] = decoders.TARGETS
    if unknown := set(args.targets) - targets.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(targets)}")
    chosen = args.targets or list(targets)
    if args.engine == "atheris":
        return _atheris(decoders, chosen, args.seconds)
    return max(_own(decoders, name, args.seconds, args.seed, args.keep) for name in chosen)


def _imported() -> ModuleType:
    from . import targets

    return targets


def _watched() -> ModuleType:
    """The engine learns of ways in what is imported here for the first time: all of the package, and none of
    what it imports."""
    import atheris

    with atheris.instrument_imports(include=["pccl_py"]):
        return _imported()


def _own(decoders: ModuleType, name: str, seconds: float, seed: int, keep: bool) -> int:
    from .campaign import Campaign, Fault, write_corpus

    target = decoders.TARGETS[name]
    campaign = Campaign(name, target, seed)
    known = len(campaign.pool) - len(target.seeds)
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
        old = campaign.pool[len(target.seeds) :][:known]
        write_corpus(name, (old + small)[-KEPT_MAX:])
    return 0


def _atheris(decoders: ModuleType, names: list[str], seconds: float) -> int:
    """Each target in a process of its own: the engine never returns."""
    worst = 0
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
            pid = os.fork()
            if pid == 0:
                _atheris_one(decoders, name, seconds, Path(place))
            worst = max(worst, int(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0))
    return worst


def _atheris_one(decoders: ModuleType, name: str, seconds: float, place: Path) -> None:
    """Begins with the seeds and the corpus, which it wants as files."""
    import atheris

    from .campaign import Campaign

    campaign = Campaign(name, decoders.TARGETS[name])
    campaign.replay()
    for number, data in enumerate(campaign.pool):
        (place / str(number)).write_bytes(data)
    words = [
        f"tests.fuzz {name}",
        f"-max_total_time={round(seconds)}",
        "-max_len=4096",
        "-print_final_stats=1",
        "-verbosity=0",
        str(place),
    ]
    atheris.Setup(words, lambda data: campaign.one(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
