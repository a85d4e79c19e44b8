"""`python -m pccl_py doctor`: is this host ready for a run? Each line says what was found, and what to do."""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import PcclError

OPTIONAL = ("torch", "s3fs", "prometheus_client", "rich", "matplotlib")
DISK_BYTES = 64 << 20
SHM_MIN = 1 << 30


@dataclass(frozen=True)
class Finding:
    """`state`: "ok", "warning" (slower, or less), or "failed" (a run cannot work)."""

    about: str
    state: str
    text: str


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="look whether this host is ready for a run",
        description="Versions, processor, memory, network, the way to a master, the speed of a disk. "
        "The exit status is 1 where something would keep a run from working.",
    )
    parser.add_argument(
        "--master", metavar="HOST:PORT", help="join and leave a run of its own at this master"
    )
    parser.add_argument("--secret-file", metavar="FILE", help="of that master")
    parser.add_argument("--insecure", action="store_true", help="that master has no secret")
    parser.add_argument("--disk", metavar="DIR", help="where checkpoints will be: how fast it is")
    parser.add_argument("--json", action="store_true", help="one object per line")


def run(args: argparse.Namespace) -> int:
    failed = False
    for finding in findings(args):
        failed |= finding.state == "failed"
        line = (
            json.dumps(asdict(finding))
            if args.json
            else f"{finding.state:<8} {finding.about}: {finding.text}"
        )
        print(line, flush=True)
    return 1 if failed else 0


def findings(args: argparse.Namespace) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    core = _core()
    yield core
    yield Finding("extras", "ok", ", ".join(map(_version, OPTIONAL)))
    yield _settings()
    yield _limits()
    yield _shared_memory()
    yield _network()
    if args.disk is not None:
        yield _checked("disk", lambda: _disk(Path(args.disk)))
    if args.master is not None and core.state == "ok":
        yield _checked("master", lambda: _master(args))


def _checked(about: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except (PcclError, OSError) as error:
        return Finding(about, "failed", str(error))


def _version(name: str) -> str:
    if find_spec(name) is None:
        return f"{name} absent"
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name} of no known version"


def _core() -> Finding:
    try:
        from ..bench.kernels_worker import KernelsWorker
    except (ImportError, PcclError) as error:
        return Finding("core", "failed", f"{error}; build it: pip install -e .")
    return Finding("core", "ok", f"kernels for {', '.join(KernelsWorker().instruction_sets())}")


def _settings() -> Finding:
    from ..config import settings

    try:
        found = settings()
    except PcclError as error:
        return Finding("settings", "failed", f"{error}; see `python -m pccl_py config`")
    changed = [f"{one.name}={one.value}" for one in found if one.origin != "default"]
    known = {one.env for one in found}
    if unknown := sorted(name for name in os.environ if name.startswith("PCCL_") and name not in known):
        return Finding("settings", "warning", f"{', '.join(unknown)}: read by nothing that has this prefix")
    return Finding("settings", "ok", ", ".join(changed) or "all defaults")


def _limits() -> Finding:
    import resource

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    cores = len(os.sched_getaffinity(0))
    text = f"{cores} cores, {files} open files"
    if files < 1024:
        return Finding(
            "limits", "warning", f"{text}: a master of many peers needs more files (ulimit -n 65536)"
        )
    return Finding("limits", "ok", text)


def _shared_memory() -> Finding:
    try:
        space = os.statvfs("/dev/shm")
    except OSError as error:
        return Finding("shared memory", "warning", f"/dev/shm: {error.strerror}; snapshots need it")
    free = space.f_bavail * space.f_frsize
    text = f"{free / 2**30:.1f} GiB free in /dev/shm"
    if free < SHM_MIN:
        return Finding(
            "shared memory", "warning", f"{text}: little room for snapshots (--shm-size of a container)"
        )
    return Finding("shared memory", "ok", text)


def _network() -> Finding:
    name = socket.gethostname()
    try:
        found = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    except OSError as error:
        return Finding(
            "network", "warning", f"{name} has no address ({error}): peers elsewhere need advertise="
        )
    kind = ", ".join(found)
    if all(address.startswith("127.") or address == "::1" for address in found):
        return Finding("network", "ok", f"{name} is {kind} here: peers are found by the master's address")
    return Finding("network", "ok", f"{name} is {kind}")


def _disk(folder: Path) -> Finding:
    data = os.urandom(1 << 20) * (DISK_BYTES >> 20)
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        began = time.monotonic()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        took = time.monotonic() - began
    return Finding("disk", "ok", f"{len(data) / took / 1e6:.0f} MB/s durable in {folder}")


def _master(args: argparse.Namespace) -> Finding:
    from ..communicator import Communicator
    from ..config import Config

    name = f"doctor-{socket.gethostname()}-{os.getpid()}"
    began = time.monotonic()
    with Communicator(
        args.master,
        secret_file=args.secret_file,
        insecure=args.insecure,
        run_name=name,
        config=Config.load(connect_timeout_s=10.0),
    ) as comm:
        took = time.monotonic() - began
        comm.barrier()
    return Finding("master", "ok", f"{args.master} let this host in after {took * 1e3:.0f} ms")
