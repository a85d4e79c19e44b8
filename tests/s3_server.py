"""A real S3 server in a process of its own (moto's), behind a door that can be shut and that counts bytes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from typing import Any, Self

BUCKET = "bucket"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class S3Server:
    """`options` go to fsspec, by the door; `straight` past it. `sent`: bytes that came in by the door."""

    def __init__(self) -> None:
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()
        self._door = socket.create_server(("127.0.0.1", 0))
        self._links: list[socket.socket] = []
        self.shut = self._ended = False
        self.sent = 0
        self._thread = threading.Thread(target=self._keep_door, daemon=True)
        self._thread.start()

    @property
    def options(self) -> dict[str, Any]:
        return {
            "endpoint_url": f"http://127.0.0.1:{self._door.getsockname()[1]}",
            "key": "key",
            "secret": "secret",
        }

    @property
    def straight(self) -> dict[str, Any]:
        return self.options | {"endpoint_url": f"http://127.0.0.1:{self._port}"}

    def start(self) -> None:
        """Empty but for the bucket."""
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            with suppress(OSError):
                with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/moto-api/", timeout=5) as answer:
                    answer.read()
                break
            time.sleep(0.1)
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/{BUCKET}", method="PUT")
        urllib.request.urlopen(request, timeout=20).close()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def freeze(self, frozen: bool) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def shut_door(self) -> None:
        """Links break, new ones are refused at once."""
        self.shut = True
        for link in list(self._links):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def open_door(self) -> None:
        self.shut = False

    def fs(self) -> Any:
        import s3fs

        return s3fs.S3FileSystem(**self.straight, skip_instance_cache=True, use_listings_cache=False)

    def _keep_door(self) -> None:
        while not self._ended:
            try:
                link, _ = self._door.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(link,), daemon=True).start()

    def _forward(self, link: socket.socket) -> None:
        with link, suppress(OSError):
            if self.shut:
                return
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                self._links += [link, server]
                while not self.shut:
                    for ready in select.select([link, server], [], [], 0.2)[0]:
                        data = ready.recv(1 << 18)
                        if not data:
                            return
                        if ready is link:
                            self.sent += len(data)
                        (server if ready is link else link).sendall(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._door.close()
        self.freeze(False)
        self.kill()
