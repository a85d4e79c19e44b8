"""How the C++ is built; everything else about the project is said in pyproject.toml.

    python setup.py build_ext --inplace
    python setup.py build_tests [--sanitize address|coverage|thread|libfuzzer|none] [--jobs N]
                                 [--target aarch64] [--only kernels|fuzz|libfuzzer]

Objects live in build/objects-<flavour> whoever asked for them (pip included), and only what changed is
compiled again: an object is current while its command is the same and it is younger than its source and every
header that the source includes. The extension and the plain tests share one set of objects.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pybind11
from pybind11.setup_helpers import Pybind11Extension
from setuptools import Command, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, OptionError

ROOT = Path(__file__).resolve().parent
MACHINE = platform.machine()


def compiler_for(machine: str) -> list[str]:
    """`CXX` for this machine, `CXX_FOR_TARGET` for another."""
    if machine == MACHINE:
        return shlex.split(os.environ.get("CXX", "g++"))
    return shlex.split(os.environ.get("CXX_FOR_TARGET", f"{machine}-linux-gnu-g++"))


# Contraction of a*b+c differs between instruction sets, and with it the last bit of a sum: off everywhere.
COMMON_FLAGS = "-std=c++20 -Wall -Wextra -Wshadow -fvisibility=hidden -ffp-contract=off -pthread".split()

# Debug lines cost nothing at run time; the extension drops them when it is linked.
COMPILE_FLAGS = {
    "none": "-O3 -g1 -fPIC".split(),
    "address": "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer "
    "-D_GLIBCXX_ASSERTIONS".split(),
    # As address, and each edge and comparison is told to tests/cpp/fuzz/coverage.cpp.
    "coverage": "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer "
    "-fsanitize-coverage=trace-pc,trace-cmp".split(),
    "thread": "-O1 -g -fsanitize=thread -D_GLIBCXX_ASSERTIONS".split(),
    # Of clang. Its warnings are of what g++'s own headers do.
    "libfuzzer": "-O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all "
    "-fno-omit-frame-pointer -Wno-deprecated-declarations".split(),
}
# Tests' own sources: most are run once, soon after they are compiled. The simulator runs for long.
QUICK_FLAGS = {"none": ["-O1"]}
LINK_FLAGS = {
    "none": [],
    "address": ["-fsanitize=address,undefined"],
    "coverage": ["-fsanitize=address,undefined"],
    "thread": ["-fsanitize=thread"],
    "libfuzzer": ["-fsanitize=fuzzer,address,undefined"],
}

# Files of csrc/kernels by the end of their name: which machine compiles them, and with what. Everything else
# is compiled for the machine's baseline; which of these runs is decided at run time.
AVX2_FLAGS = "-mavx2 -mfma -mf16c".split()
AVX512_FLAGS = [*AVX2_FLAGS, *"-mavx512f -mavx512bw -mavx512dq -mavx512vl".split()]
INSTRUCTION_SETS = {
    "_avx2": ("x86_64", AVX2_FLAGS),
    "_avx512": ("x86_64", AVX512_FLAGS),
    "_avx2_gfni": ("x86_64", [*AVX2_FLAGS, "-mgfni"]),
    "_avx512_gfni": ("x86_64", [*AVX512_FLAGS, "-mgfni"]),
    "_pclmul": ("x86_64", "-msse4.1 -mpclmul".split()),
    "_vpclmul": ("x86_64", [*AVX512_FLAGS, *"-mpclmul -mvpclmulqdq".split()]),
    "_neon": ("aarch64", []),
}

# Decoders, and what makes something of what they give.
FUZZED = [
    "base/", "kernels/", "collective/", "protocol/", "wire/", "net/handshake", "net/inbox",
    "runtime/describe", "runtime/exchange", "runtime/make_executor", "runtime/plan_choice",
    "runtime/run_record",
]  # fmt: skip
MAIN = "tests/cpp/main.cpp"
DECODERS = [f"fuzz/{what}.cpp" for what in ("target", "machines", "messages", "records", "streams")]
# Parts of the C++ tests that need few rooms: what has main(), these folders of csrc, and these tests.
PARTS = {
    "all": (MAIN, [""], ["*.cpp"]),
    "kernels": (
        MAIN,
        ["base/", "kernels/", "erasure/"],
        [f"test_{what}*.cpp" for what in ("kernels", "quantize", "galois", "crc32", "erasure")],
    ),
    "fuzz": (MAIN, FUZZED, ["test_fuzz.cpp", "fuzz/*.cpp", "household.cpp"]),
    "libfuzzer": ("tests/fuzz/libfuzzer.cpp", FUZZED, [*DECODERS, "household.cpp"]),
}


def instruction_set(source: str) -> tuple[str, list[str]] | None:
    path = Path(source)
    if path.parts[:2] != ("csrc", "kernels"):
        return None
    return next((entry for end, entry in INSTRUCTION_SETS.items() if path.stem.endswith(end)), None)


def find(folder: str, pattern: str) -> list[str]:
    """Paths relative to the root, in an order that does not depend on the file system."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(f"**/{pattern}"))


def core_sources(machine: str) -> list[str]:
    """What is compiled for a machine, less the bindings. Files of one instruction set come last: of an inline
    function that several objects define the linker keeps the first, which has to run on every machine."""
    sources = [s for s in find("csrc", "*.cpp") if not s.startswith("csrc/bindings/")]
    special = [s for s in sources if instruction_set(s)]
    ours = [s for s in special if instruction_set(s)[0] == machine]
    return [s for s in sources if s not in special] + ours


@dataclass(frozen=True)
class Unit:
    """One source, its object, and what decides whether the object is current."""

    source: str
    target: Path
    command: list[str]
    fingerprint: str

    @property
    def _stamp(self) -> Path:  # written last: an object without it was cut off
        return self.target.with_suffix(".stamp")

    def is_current(self) -> bool:
        try:
            built = self.target.stat().st_mtime_ns
            if self._stamp.read_text() != self.fingerprint:
                return False
            return all((ROOT / path).stat().st_mtime_ns < built for path in self._included())
        except OSError:
            return False

    def _included(self) -> list[str]:
        rule = self.target.with_suffix(".d").read_text().replace("\\\n", " ")
        return shlex.split(rule.partition(": ")[2])

    def compile(self) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._stamp.unlink(missing_ok=True)
        started = time.time_ns()
        run(self.command, CompileError)
        os.utime(self.target, ns=(started, started))  # so that an edit made while it compiled is younger
        self._stamp.write_text(self.fingerprint)


def run(command: Sequence[str], error: type[Exception]) -> None:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.stdout:
        print(done.stdout, end="", flush=True)
    if done.returncode != 0:
        raise error(f"status {done.returncode} from {shlex.join(command)}")


class Build:
    """Compiles into build/objects-<flavour> and links from there; another machine's name comes before the
    flavour."""

    def __init__(self, flavour: str, jobs: int | None, machine: str = MACHINE) -> None:
        self._flavour = flavour
        self._jobs = jobs or len(os.sched_getaffinity(0))
        self.name = flavour if machine == MACHINE else f"{machine}-{flavour}"
        self._objects = ROOT / "build" / f"objects-{self.name}"
        self._cxx = compiler_for(machine)
        self._compiler = subprocess.check_output([*self._cxx, "--version"], text=True)
        self._flags = [*COMMON_FLAGS, *COMPILE_FLAGS[flavour], *shlex.split(os.environ.get("CXXFLAGS", ""))]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time; another waits here and then finds its work done."""
        self._objects.mkdir(parents=True, exist_ok=True)
        with open(self._objects / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def unit(
        self, source: str, *, include: Sequence[str] = (), system: Sequence[str] = (), salt: str = ""
    ) -> Unit:
        """`salt` stands for `system` in the fingerprint: an isolated build has it elsewhere every time."""
        target = self._objects / f"{source}.o"
        _, special = instruction_set(source) or ("", [])
        quick = QUICK_FLAGS.get(self._flavour, []) if source.startswith("tests/cpp/test_") else []
        flags = [*self._flags, *special, *quick, *(f"-I{path}" for path in ("csrc", *include))]
        dependencies = ["-MMD", "-MF", str(target.with_suffix(".d"))]
        outside = [word for path in system for word in ("-isystem", path)]
        command = [*self._cxx, *flags, *outside, *dependencies, "-c", source, "-o", str(target)]
        return Unit(source, target, command, "\n".join([*flags, salt, self._compiler]))

    def compile(self, units: Sequence[Unit]) -> list[str]:
        stale = [unit for unit in units if not unit.is_current()]
        started = time.monotonic()
        with ThreadPoolExecutor(self._jobs) as pool:
            futures = [pool.submit(unit.compile) for unit in stale]
            failed = [f for f in wait(futures, return_when=FIRST_EXCEPTION).done if f.exception()]
            pool.shutdown(wait=True, cancel_futures=bool(failed))
        for future in failed:
            future.result()
        done = f"{len(stale)} of {len(units)} sources compiled in {time.monotonic() - started:.1f} s"
        print(f"{self.name}: {done}", flush=True)
        return [str(unit.target) for unit in units]

    def link(self, target: Path, objects: Sequence[str], flags: Sequence[str] = ()) -> None:
        """Into a new file that then takes the name: whoever runs the old one keeps it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        flags = ["-pthread", *LINK_FLAGS[self._flavour], *flags]
        libraries = shlex.split(os.environ.get("LDFLAGS", ""))
        libraries.append("-ldl")  # dlopen(), where it is not in libc
        run([*self._cxx, *flags, *objects, *libraries, "-o", str(part)], LinkError)
        part.replace(target)


class BuildExtension(build_ext):
    """setuptools decides where the extension goes and when; the compiling and linking is ours."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        build = Build("none", self.parallel)
        salt = f"pybind11 {pybind11.__version__}, {sys.version}"
        with build.locked():
            units = [
                build.unit(source, system=[*ext.include_dirs, *self.include_dirs], salt=salt)
                if source.startswith("csrc/bindings/")
                else build.unit(source)
                for source in ext.sources
            ]
            target = Path(self.get_ext_fullpath(ext.name)).resolve()
            build.link(target, build.compile(units), ["-shared", "-Wl,--strip-debug"])


class BuildTests(Command):
    description = "build the C++ tests into build/tests-<sanitizer>/pccl_tests"
    user_options = [
        ("sanitize=", None, "address (with undefined), coverage or libfuzzer, thread, or none (the default)"),
        ("target=", None, "another machine, such as aarch64: build/tests-<target>-<sanitizer>/pccl_tests"),
        ("only=", None, "a part of the tests, in a folder of its own: kernels, fuzz or libfuzzer"),
        ("jobs=", "j", "how many compilers at a time (default: one per core)"),
    ]

    def initialize_options(self) -> None:
        self.sanitize = "none"
        self.target = MACHINE
        self.only = "all"
        self.jobs = None

    def finalize_options(self) -> None:
        if self.sanitize not in COMPILE_FLAGS:
            raise OptionError(f"--sanitize takes {', '.join(COMPILE_FLAGS)}, not {self.sanitize}")
        if self.only not in PARTS:
            raise OptionError(f"--only takes {', '.join(PARTS)}, not {self.only}")
        try:
            subprocess.check_output([*compiler_for(self.target), "--version"])
        except (OSError, subprocess.CalledProcessError) as error:
            raise OptionError(f"--target {self.target} needs a compiler for it: {error}") from error
        self.jobs = int(self.jobs) if self.jobs else None

    def run(self) -> None:
        build = Build(self.sanitize, self.jobs, self.target)
        part = "" if self.only == "all" else f"-{self.only}"
        target = ROOT / "build" / f"tests-{build.name}{part}" / "pccl_tests"
        main, rooms, patterns = PARTS[self.only]
        tests = sorted({main}.union(*(find("tests/cpp", pattern) for pattern in patterns)))
        sources = [s for s in core_sources(self.target) if s.startswith(tuple(f"csrc/{r}" for r in rooms))]
        with build.locked():
            units = [build.unit(source) for source in sources]
            units += [build.unit(source, include=["tests/cpp"]) for source in tests]
            build.link(target, build.compile(units))
        print(target.relative_to(ROOT), flush=True)


os.chdir(ROOT)
bindings = find("csrc/bindings", "*.cpp")
compiled = [*bindings, *core_sources(MACHINE)]  # bindings first: they take longest
extension = Pybind11Extension("pccl_py._core", compiled, cxx_std=20)
# So that a source distribution has them: headers, other machines' kernels, and the C++ tests.
others = [source for source in find("csrc", "*.cpp") if source not in compiled]
extension.depends = [*others, *find("csrc", "*.hpp"), *find("tests/cpp", "*.[ch]pp"), "CHANGELOG.md"]

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExtension, "build_tests": BuildTests})
