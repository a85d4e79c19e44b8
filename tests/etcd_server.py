"""A real etcd of one member, for tests; where it may, it is installed by the system's packages before."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from pccl_py import ConnectError
from pccl_py.master.etcd_gateway import Gateway


def needed_etcd() -> str:
    """The path of the server. Skips the test where there is none."""
    path = shutil.which("etcd")
    if path is None:
        pytest.skip("no etcd on this machine: apt-get install etcd-server")
    return path


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class EtcdServer:
    """Over loopback, in a folder that it may be started in again."""

    def __init__(self, folder: Path) -> None:
        self._path = needed_etcd()
        self.endpoint, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._command = [
            *(self._path, "--data-dir", str(folder / "data"), "--name", "one", "--unsafe-no-fsync"),
            *("--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"one={peers}"),
        ]
        self._log = folder / "etcd.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        try:
            Gateway(self.endpoint).call("kv/range", {"key": "AA=="}, time.monotonic() + 20)
        except ConnectError:
            self.stop()
            raise

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
