"""Compiles the emulator's program: once per state of its sources, flags and compiler."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .errors import NoEmulator

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER.parents[1] / "build" / "net"
FLAGS = "-std=c++20 -O2 -Wall -Wextra -Wshadow".split()


def program() -> Path:
    """The compiled program. Raises NoEmulator where there is no compiler, it fails, or may not write."""
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    path = BUILD / f"wan-{_fingerprint(compiler)}"
    if path.exists():
        return path
    try:
        BUILD.mkdir(parents=True, exist_ok=True)
        with open(BUILD / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be at it; then its result is found here
            if not path.exists():
                _compile(compiler, path)
    except OSError as error:
        raise NoEmulator(f"a place for its program: {error}") from error
    return path


def _fingerprint(compiler: Sequence[str]) -> str:
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise NoEmulator(f"a C++ compiler: {error}") from error
    digest = hashlib.sha256(version + " ".join([*compiler, *FLAGS]).encode())
    for source in sorted([*FOLDER.glob("*.hpp"), *FOLDER.glob("*.cpp")]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: Sequence[str], path: Path) -> None:
    for old in BUILD.glob("wan-*"):
        with suppress(OSError):
            old.unlink()  # who runs it keeps it
    part = path.with_name("part")
    sources = [str(source) for source in sorted(FOLDER.glob("*.cpp"))]
    done = subprocess.run([*compiler, *FLAGS, *sources, "-o", str(part)], capture_output=True, text=True)
    if done.returncode != 0:
        raise NoEmulator(f"a C++ compiler that takes the emulator:\n{done.stderr}")
    part.rename(path)
