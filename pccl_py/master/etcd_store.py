"""A master's store in etcd, and the election of the one master among several that has it."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ..errors import ConnectError, DamagedError, PcclError, UsageError
from . import etcd_answers
from .etcd_answers import KeyValue, Object, text64
from .etcd_gateway import EtcdRefused, Gateway
from .etcd_lease import Lease

LEASE_S = 5.0
LEASE_MIN_S = 2.0  # etcd itself grants no less, as it is installed
POLL_S = 0.1
CALL_S = 2.0
FIRST_ANSWER_S = 10.0  # nothing has ever answered: then the endpoints are wrong
NOTICE_S, NOTICE_AGAIN_S = 3.0, 60.0
RUNS_MAX = 1 << 12  # what a master serves
LOG = logging.getLogger("pccl_py")


class Serving(Protocol):
    """What a store needs of the master that it lets serve."""

    def serve_until(self, monotonic_s: float) -> None: ...

    def fence(self, why: str) -> None: ...


class EtcdStore:
    """`Master(store=EtcdStore("http://a:2379,http://b:2379", prefix="llama"))`: of all masters with this
    prefix one serves, the others wait, and one of them goes on with its runs when it is gone.

    endpoints   members of one etcd cluster
    prefix      a name for this group of masters, before each of its keys
    lease_s     a master that etcd has not heard for so long serves no more; whole seconds, 2 at least. Where
                etcd's own members may fail, 5 or more: they need up to 2 s to elect a leader
    name        who this is, for those who wait; default: host and process
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        prefix: str = "pccl",
        lease_s: float = LEASE_S,
        name: str | None = None,
    ) -> None:
        if not prefix or len(prefix) > 200 or not prefix.isprintable() or prefix.endswith("/"):
            raise UsageError(f"etcd prefix {prefix!r}: it is 1 to 200 printable characters, no / at the end")
        if not LEASE_MIN_S <= lease_s <= 3600:
            raise UsageError(f"etcd lease of {lease_s:g} s: it is {LEASE_MIN_S:g} to 3600 s")
        self._gateway = Gateway(endpoints)
        self._prefix, self._lease_s = prefix, lease_s
        self.name = name or f"process {os.getpid()} of {socket.gethostname()}"
        self._seat = f"{prefix}/master".encode()
        self._runs = f"{prefix}/runs/".encode()
        self._lease: Lease | None = None
        self._elected = 0  # the create_revision of our seat
        self._kept: dict[bytes, int] = {}  # mod_revision by key
        self._lock = threading.Lock()  # guards the next two
        self._serving: Serving | None = None
        self._lost = ""

    # ---- election ----

    def campaign(
        self, stop: Callable[[], bool] = lambda: False, say: Callable[[str], None] = LOG.info
    ) -> bool:
        """Waits until this is the master: True. `stop`: asked ten times a second; False when it said so.
        `say`: hears who has the lease, after a few seconds and then each minute.

        Raises ConnectError when etcd has never answered.
        """
        began, notice_at, answered = time.monotonic(), time.monotonic() + NOTICE_S, False
        while self._lease is None:
            if stop():
                return False
            try:
                holder = self._holder() or self._take_seat()
                answered, text = True, f"{_shown(holder)} is the master" if holder else ""
            except PcclError as error:
                text = f"{error}; trying again"
                if isinstance(error, EtcdRefused) and not answered:
                    raise
                if not answered and time.monotonic() - began > FIRST_ANSWER_S:
                    raise ConnectError(f"{error}; is it running, and are the endpoints right?") from None
            if self._lease is None:
                if (now := time.monotonic()) >= notice_at:
                    say(f"waiting to be the master of {self._prefix!r} for {now - began:.0f} s: {text}")
                    notice_at = now + NOTICE_AGAIN_S
                time.sleep(POLL_S)
        return True

    def _holder(self) -> KeyValue | None:
        answer = self._gateway.call("kv/range", {"key": text64(self._seat)}, time.monotonic() + CALL_S)
        return next(iter(etcd_answers.key_values(answer)), None)

    def _take_seat(self) -> KeyValue | None:
        """None: it is ours. Else who was faster."""
        until = time.monotonic() + CALL_S
        lease = Lease(self._gateway, self._lease_s, until)
        try:
            put: Object = {"key": text64(self._seat), "value": text64(self.name.encode())}
            put["lease"] = str(lease.number)
            done = self._transaction([_created(self._seat, 0)], {"request_put": put}, [self._seat], until)
            seat = KeyValue(self._seat, b"", done.revision, 0)
            if not done.succeeded:
                seat = next(iter(done.found[0] if done.found else []), seat)
                if seat.lease != lease.number:  # else an earlier answer was lost on its way
                    lease.give_back()
                    return seat
        except PcclError:
            lease.give_back()
            raise
        self._elected, self._lease = seat.create_revision, lease
        lease.keep(self._moved, self._fence)
        return None

    # ---- whoever serves by it ----

    def attach(self, serving: Serving) -> None:
        """Bounds its service by the lease, from now on."""
        assert self._lease is not None
        with self._lock:
            self._serving = serving
            serving.serve_until(self._lease.end)
            if self._lost:
                serving.fence(self._lost)

    def _moved(self, end: float) -> None:
        with self._lock:
            if self._serving is not None:
                self._serving.serve_until(end)

    def _fence(self, why: str) -> None:
        with self._lock:
            self._lost = self._lost or why
            if self._serving is not None:
                self._serving.fence(why)

    def close(self) -> None:
        """Gives the lease back: the next master need not wait for its end."""
        with self._lock:
            self._serving = None
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.give_back()

    # ---- the store, on the master's thread ----

    def load(self) -> list[bytes]:
        """One record of each run under this prefix, as the master wrote it. Raises ConnectError where etcd is
        silent, DamagedError for answers that are none."""
        records: list[bytes] = []
        start, end = self._runs, self._runs[:-1] + bytes([self._runs[-1] + 1])
        while len(records) < RUNS_MAX:
            request: Object = {"key": text64(start), "range_end": text64(end), "limit": "1"}
            found = etcd_answers.key_values(self._gateway.call("kv/range", request, self._deadline()))
            if not found:
                break
            if not start <= found[0].key < end:
                raise DamagedError("etcd answers with a key that it was not asked for")
            self._kept[found[0].key] = found[0].mod_revision
            records.append(found[0].value)
            start = found[0].key + b"\0"
        return records

    def keep(self, run_name: str, record: bytes) -> str | None:
        """None once it is kept; else why this master serves no more: nothing in between would be safe, for
        the next master must know the newest view that anybody was told."""
        key = self._key(run_name)
        put: Object = {"request_put": {"key": text64(key), "value": text64(record)}}
        while not self._lost and self._lease is not None and time.monotonic() < self._lease.end:
            try:
                done = self._transaction(self._ours(key), put, [self._seat, key], self._lease.end)
            except EtcdRefused as error:
                return f"its view could not be kept: {error}"
            except PcclError as error:
                return f"its view could not be kept before its lease ran out: {error}"
            if done.succeeded:
                self._kept[key] = done.revision
                return None
            if why := self._unseated(done.found):
                return why
            before = next(iter(done.found[1]), None)
            self._kept[key] = before.mod_revision if before is not None else 0
            if before is not None and before.value == record:  # an earlier answer was lost on its way
                return None
        return self._lost or "its lease ran out before its view could be kept"

    def forget(self, run_name: str) -> None:
        """Removes the record of a run that is over, if it is still ours. Raises as load() does."""
        key = self._key(run_name)
        delete: Object = {"request_delete_range": {"key": text64(key)}}
        self._transaction(self._ours(key), delete, [], self._deadline())
        self._kept.pop(key, None)

    def _deadline(self) -> float:
        now = time.monotonic()
        return min(now + CALL_S, self._lease.end if self._lease is not None else now)

    def _key(self, run_name: str) -> bytes:
        # A run's name may have any character, and more of them than a key should.
        return self._runs + hashlib.sha256(run_name.encode()).hexdigest()[:32].encode()

    def _ours(self, key: bytes) -> list[Object]:
        """While we have the seat, and nobody has written there since: a request that was held up on its way
        must not undo a later one."""
        modified: Object = {"key": text64(key), "target": "MOD", "result": "EQUAL"}
        modified["mod_revision"] = str(self._kept.get(key, 0))
        return [_created(self._seat, self._elected), modified]

    def _unseated(self, found: list[list[KeyValue]]) -> str:
        if len(found) != 2:
            return "etcd's answer does not say who is the master"
        seat = next(iter(found[0]), None)
        if seat is not None and seat.create_revision == self._elected:
            return ""
        return f"another master has its runs now: {_shown(seat)}" if seat else "its lease at etcd is over"

    def _transaction(
        self, compare: Sequence[Object], success: Object, failure: Sequence[bytes], until: float
    ) -> etcd_answers.Transaction:
        asked: Object = {
            "compare": list(compare),
            "success": [success],
            "failure": [{"request_range": {"key": text64(key)}} for key in failure],
        }
        return etcd_answers.transaction(self._gateway.call("kv/txn", asked, until))


def _created(key: bytes, revision: int) -> Object:
    return {"key": text64(key), "target": "CREATE", "result": "EQUAL", "create_revision": str(revision)}


def _shown(seat: KeyValue | None) -> str:
    text = seat.value[:200].decode(errors="replace") if seat is not None else ""
    return "".join(c if c.isprintable() else "?" for c in text) or "a process without a name"
