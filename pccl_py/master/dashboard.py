"""A page about the runs of a master, for people and for Prometheus. It shows, and changes nothing."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, Protocol, Self

from ..errors import ConnectError, UsageError
from . import metrics

AT_ONCE_MAX = 32  # connections
REQUEST_S = 5.0
FRESH_S = 0.1  # so many viewers cost the master no more than one
PAGE = {
    "/": ("dashboard.html", "text/html; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
}
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"


class Reporting(Protocol):
    def report(self) -> dict[str, Any]: ...


class Dashboard:
    """Serves `/` (a page that looks again twice a second), `/status.json` (Master.report()) and `/metrics`
    (needs prometheus_client) until close().

    listen   host:port; port 0: any that is free. Beyond loopback anybody who reaches it sees names of hosts
             and islands: that has to be asked for with `anywhere`
    """

    def __init__(self, master: Reporting, listen: str = "127.0.0.1:0", *, anywhere: bool = False) -> None:
        host, port = _parsed(listen)
        if not anywhere and not _is_loopback(host):
            raise UsageError(
                f"a dashboard at {listen} could be read by anybody: use 127.0.0.1 (and ssh -L), or "
                "say that it may be (--http-anywhere)"
            )
        try:
            self._server = _Server((host, port), master, check_host=_is_loopback(host))
        except OSError as error:
            raise ConnectError(f"cannot serve a dashboard at {listen}: {error.strerror or error}") from None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.name = "pccl-dashboard"
        self._thread.start()

    @property
    def address(self) -> str:
        """host:port"""
        host, port = self._server.server_address[:2]
        name = str(host)
        return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"

    @property
    def url(self) -> str:
        """For a browser, and for `python -m pccl_py top`."""
        return f"http://{self.address}/"

    def close(self) -> None:
        """Answers nobody any more; may be called again. The master goes on."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = AT_ONCE_MAX  # who comes beyond these would knock again after a second

    def __init__(self, address: tuple[str, int], master: Reporting, *, check_host: bool) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.check_host = check_host
        self._master = master
        self._places = threading.BoundedSemaphore(AT_ONCE_MAX)
        self._lock = threading.Lock()
        self._report: dict[str, Any] = {}
        self._reported = -FRESH_S
        super().__init__(address, _Request)

    def report(self) -> dict[str, Any]:
        """Not older than FRESH_S; raises PcclError where the master does not answer."""
        with self._lock:
            if time.monotonic() - self._reported >= FRESH_S:
                self._report = self._master.report()
                self._reported = time.monotonic()
            return self._report

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever asked has gone, or was too slow: no business of the master's log."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "pccl_py", ""
    timeout = REQUEST_S

    def do_GET(self) -> None:
        if self.server.check_host and not _is_local_name(self.headers.get("Host", "")):
            # Another site's page whose name was made to point here.
            self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"ask for localhost\n")
            return
        path = self.path.partition("?")[0]
        if path in PAGE:
            name, kind = PAGE[path]
            self._answer(HTTPStatus.OK, kind, files(__package__).joinpath(name).read_bytes())
        elif path == "/status.json":
            self._answer_report("application/json", lambda found: json.dumps(found).encode())
        elif path == "/metrics" and not metrics.available():
            text = f"{metrics.MISSING}\n".encode()
            self._answer(HTTPStatus.NOT_IMPLEMENTED, "text/plain; charset=utf-8", text)
        elif path == "/metrics":
            self._answer_report(metrics.content_type(), metrics.exposition)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there are /, /status.json and /metrics\n")

    do_HEAD = do_GET

    def _answer_report(self, kind: str, body: Any) -> None:
        from ..errors import PcclError

        try:
            found = body(self.server.report())
        except PcclError as error:
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", f"{error}\n".encode())
            return
        self._answer(HTTPStatus.OK, kind, found)

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """The master's log is about its runs."""


def _parsed(listen: str) -> tuple[str, int]:
    """ "8080", "host:8080", "[::1]:8080"."""
    host, _, port = listen.rpartition(":") if ":" in listen else ("127.0.0.1", "", listen)
    if not port.isdecimal() or int(port) > 65535 or not host:
        raise UsageError(f"{listen!r} is no place for a dashboard: it is PORT or HOST:PORT")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_local_name(host: str) -> bool:
    """Of a Host header: also through a tunnel, whose other end is a localhost too."""
    name = host[: host.rfind(":")] if host.rfind(":") > host.rfind("]") else host
    return _is_loopback(name.strip("[]"))
