"""Decoders in C++ under clang's libFuzzer: `python -m tests.fuzz.libfuzzer PROGRAM --seconds S`.

PROGRAM is what `setup.py build_tests --sanitize libfuzzer --only libfuzzer` builds. Each decoder begins with
its corpus, tests/corpus, and with valid inputs that are drawn; what takes a new way stays in build/libfuzzer
until the next time, and what fails is there, too. Exit status 0: no decoder did what it must not.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BYTES_MAX = 1 << 16
BESIDE_S = 120.0  # for its start and its corpus


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.libfuzzer", description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("decoders", nargs="*", metavar="DECODER", help="(default: all)")
    parser.add_argument("--seconds", type=int, default=20, help="for each decoder")
    args = parser.parse_args()
    program = args.program.resolve()
    return max([_fuzz(program, name, args.seconds) for name in args.decoders or _names(program)])


def _names(program: Path) -> list[str]:
    without = {name: value for name, value in os.environ.items() if name != "PCCL_FUZZ_TARGET"}
    listed = subprocess.run(
        [program], env=without, capture_output=True, text=True, check=True, timeout=BESIDE_S
    )
    return listed.stdout.split()


def _fuzz(program: Path, name: str, seconds: int) -> int:
    folder = ROOT / "build" / "libfuzzer" / name
    found = folder / "corpus"
    found.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(_corpus(name)):
        (found / f"kept-{number}").write_bytes(bytes.fromhex(line))
    named = os.environ | {"PCCL_FUZZ_TARGET": name}
    seeding = named | {"PCCL_FUZZ_SEEDS": str(found)}
    subprocess.run([program], env=seeding, capture_output=True, check=True, timeout=BESIDE_S)
    words = [f"-max_total_time={seconds}", f"-max_len={BYTES_MAX}", "-timeout=20", "-print_final_stats=1"]
    done = subprocess.run(
        [program, *words, f"-artifact_prefix={folder}/", found],
        env=named,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + BESIDE_S,
        check=False,
    )
    print(f"  {name:14} {_told(done.stderr)}", flush=True)
    if done.returncode:
        print(done.stderr[-4000:], f"{name} failed; the input is in {folder}", sep="\n", file=sys.stderr)
    return min(done.returncode, 1) if done.returncode >= 0 else 1


def _corpus(name: str) -> list[str]:
    file = ROOT / "tests" / "corpus" / f"{name}.txt"
    return [line for line in file.read_text().split() if not line.startswith("#")] if file.exists() else []


def _told(text: str) -> str:
    runs = re.search(r"number_of_executed_units: (\d+)", text)
    edges = re.findall(r"cov: (\d+)", text)
    return f"{runs[1] if runs else 'no'} runs, {edges[-1] if edges else 'no'} edges (libFuzzer)"


if __name__ == "__main__":
    sys.exit(main())
