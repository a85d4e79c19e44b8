"""A master in a process and session of its own: it outlives who started it, and ends with its last peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import weakref

from ..errors import ConnectError

START_S = 60.0


class Hold:
    """While it lives, in this process or one that it forked, a master started with it does not end."""

    def __init__(self) -> None:
        self.read_end, write_end = os.pipe()
        weakref.finalize(self, _close, self.read_end, write_end)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def start_master(
    listen: str, secret: bytes, encrypt: bool, orphan_s: float, held: Hold | None = None
) -> list[str]:
    """Addresses that peers can dial, best first. Its output goes to `PCCL_MASTER_LOG`, or nowhere."""
    read_end, write_end = os.pipe()
    descriptor = os.memfd_create("pccl-secret")
    os.fchmod(descriptor, 0o600)
    os.write(descriptor, secret)
    words = [sys.executable, "-m", "pccl_py", "master", "--listen", listen, "--orphan-s", f"{orphan_s:g}"]
    words += ["--announce-fd", str(write_end), "--secret-file", f"/proc/self/fd/{descriptor}"]
    inherited = [write_end, descriptor]
    if held is not None:
        inherited.append(held.read_end)
        words += ["--held-fd", str(held.read_end)]
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    with open(os.environ.get("PCCL_MASTER_LOG") or os.devnull, "ab") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=inherited,
            start_new_session=True,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(paths), "PCCL_ENCRYPT": "yes" if encrypt else "no"},
            cwd="/",
        )
    os.close(write_end)
    os.close(descriptor)
    threading.Thread(target=process.wait, name="pccl-master", daemon=True).start()  # else it stays a zombie
    return _announced(read_end)


def _announced(read_end: int) -> list[str]:
    """The JSON list that the master writes once it listens."""
    deadline, text = time.monotonic() + START_S, b""
    with open(read_end, "rb", buffering=0) as pipe:
        while time.monotonic() < deadline and (part := pipe.read(65536)):
            text += part
    if not text:
        raise ConnectError("the master that this rank started ended at once: see PCCL_MASTER_LOG=FILE")
    return [str(address) for address in json.loads(text)]
