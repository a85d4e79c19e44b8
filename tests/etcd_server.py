"""A real etcd of one member, for tests; where it may, it is installed by the system's packages before."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pccl_py.master.etcd_answers import as_object
from pccl_py.master.etcd_gateway import Gateway
from tests.ports import free_port


def needed_etcd() -> str:
    """The path of the server. Skips the test where there is none."""
    path = shutil.which("etcd")
    if path is None:
        pytest.skip("no etcd on this machine: apt-get install etcd-server")
    return path


class EtcdServer:
    """Over loopback, in a folder that it may be started in again; of one member, or of several."""

    def __init__(self, folder: Path, members: int = 1) -> None:
        path = needed_etcd()
        self.endpoints = [f"http://127.0.0.1:{free_port()}" for _ in range(members)]
        peers = [f"http://127.0.0.1:{free_port()}" for _ in range(members)]
        together = ",".join(f"m{index}={url}" for index, url in enumerate(peers))
        self._commands = [
            [
                *(path, "--data-dir", str(folder / f"m{index}"), "--name", f"m{index}", "--unsafe-no-fsync"),
                *("--listen-client-urls", url, "--advertise-client-urls", url),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", together),
            ]
            for index, (url, peer) in enumerate(zip(self.endpoints, peers, strict=True))
        ]
        self.endpoint = ",".join(self.endpoints)
        self._log = folder / "etcd.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.processes = [subprocess.Popen(words, stdout=log, stderr=log) for words in self._commands]
        Gateway(self.endpoint).call("kv/range", {"key": "AA=="}, time.monotonic() + 20)

    def leader(self) -> int:
        """Its place among the members."""
        until = time.monotonic() + 20
        for index in range(len(self.endpoints)):
            status = Gateway(self.endpoints[index]).call("maintenance/status", {}, until)
            if status["leader"] == as_object(status["header"])["member_id"]:
                return index
        raise AssertionError("no member is the leader")

    def pause(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
