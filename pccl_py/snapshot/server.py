"""The keeper's loop: one thread that answers messages, and one per buffer that is being populated.

Nothing that a connection sends ends the keeper: what is wrong is refused, or closes that connection alone.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from ..errors import PcclError
from . import channel, limits, memory, messages
from .ahead import RoomsAhead
from .calls import Calls
from .connections import Connection, told_of
from .holding import Holding, Refusal
from .populating import Populating
from .processes import is_exiting
from .protection import Member, Protection

logger = logging.getLogger("pccl_py.keeper")
TICK_S = 0.2  # how often the loop looks at its clocks
WAITING_TICK_S = 0.002  # while a trainer waits for its predecessor to be gone
SHORT_S = 0.5  # until it looks again whether it may accept, where descriptors or memory are short
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Server:
    """Listens at `listener` (bound, of kind SOCK_SEQPACKET); `run` returns when nobody needs it any more."""

    def __init__(self, listener: socket.socket, run: str, keeper: str, orphan_s: float) -> None:
        self.calls = Calls()
        self._listener, self._run, self._keeper = listener, run, keeper
        self._selector = selectors.DefaultSelector()
        self._holdings: dict[str, Holding] = {}
        self._connections: set[Connection] = set()
        self._populating = Populating(self.calls)
        self._protection = Protection(self._holdings, self._attached, orphan_s, RoomsAhead(self._populating))
        self._accepts_at = 0.0  # the listener is not looked at before; 0: it is
        self._over = False
        self._idle_since, self._orphan_s = time.monotonic(), orphan_s
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self.calls.wakes, selectors.EVENT_READ)

    def run(self) -> None:
        while not self._over:
            waiting = any(one.waiting for one in self._connections)
            for key, _ in self._selector.select(WAITING_TICK_S if waiting else TICK_S):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == self.calls.wakes:
                    self.calls.woken()
                else:
                    self._read(key.data)
            self.calls.run()
            self._look_at_clocks()
        self._leave_run()
        self.close()

    def stop(self) -> None:
        """From a signal handler: the loop ends."""
        self._over = True

    def _leave_run(self) -> None:
        """The member says farewell; what it asks meanwhile is answered."""
        member = self._protection.member
        if member is None:
            return
        leaving = threading.Thread(target=member.stop, daemon=True)
        leaving.start()
        while leaving.is_alive():
            self.calls.run()
            leaving.join(WAITING_TICK_S)

    def close(self) -> None:
        for connection in list(self._connections):
            self._drop(connection)
        for holding in self._holdings.values():
            holding.close()
        self._holdings.clear()
        self._listener.close()

    # --- Connections.

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError as error:
            if error.errno in SHORTAGES:  # who knocks goes on to: without a pause it would do nothing else
                logger.warning("a connection waits that cannot be had: %s", error.strerror)
                self._selector.unregister(self._listener)
                self._accepts_at = time.monotonic() + SHORT_S
            return
        with suppress(OSError, PcclError):
            try:
                pid = channel.peer_pid(accepted)
                if len(self._connections) >= limits.CONNECTIONS_MAX:
                    raise ConnectionRefusedError("there are too many connections")
                accepted.setblocking(False)
                channel.send_raw(accepted, channel.greeting())
            except BaseException:
                accepted.close()
                raise
            connection = Connection(accepted, pid, time.monotonic())
            self._connections.add(connection)
            self._selector.register(accepted, selectors.EVENT_READ, connection)

    def _read(self, connection: Connection) -> None:
        if connection not in self._connections:
            return
        try:
            data, fds = channel.receive_raw(connection.socket)
        except BlockingIOError:
            return
        except (OSError, PcclError) as error:
            self._drop(connection, error)
            return
        try:
            if not data:
                self._drop(connection)
            elif not connection.greeted:
                channel.check_greeting(data, "the other side")
                connection.greeted = True
            else:
                self._answer(connection, messages.decode(data), fds)
        except Refusal as refusal:
            self._send(connection, refusal.answer)
        except Exception as error:  # whatever it is: what other trainers have here must not go with it
            self._drop(connection, error)
        finally:
            channel.close_all(fds)

    def _drop(self, connection: Connection, why: Exception | None = None) -> None:
        if connection not in self._connections:
            return
        if why is not None:
            logger.warning("a connection of process %d is closed: %s", connection.pid, why)
        self._connections.discard(connection)
        self._selector.unregister(connection.socket)
        connection.socket.close()
        if connection.waiting is not None:
            channel.close_all(connection.waiting[1])
            connection.waiting = None
        if connection.holding is not None:
            self._protection.gone(connection.holding.trainer)
            connection.holding.gone_since = time.monotonic()
            connection.holding = None

    def _attached(self) -> set[str]:
        return {one.holding.trainer for one in self._connections if one.holding is not None}

    def _send(self, connection: Connection, message: messages.Message, fds: list[int] | None = None) -> None:
        try:
            channel.send(connection.socket, message, fds or [])
        except OSError as error:  # also one that reads nothing: its answers are small
            self._drop(connection, error)

    # --- Messages. `fds` are closed by the caller; who keeps one takes it out of the list.

    def _answer(self, connection: Connection, message: messages.Message, fds: list[int]) -> None:
        match message:
            case messages.Attach():
                self._attach(connection, message, fds)
            case messages.AskSummary():
                pids = {one.holding.trainer: one.pid for one in self._connections if one.holding is not None}
                self._send(
                    connection,
                    messages.Summary(self._run, self._keeper, os.getpid(), told_of(self._holdings, pids)),
                )
            case messages.Free():
                self._free(connection, message.force)
            case messages.Reserve() | messages.Begin() | messages.Complete() | messages.Forget():
                self._of_trainer(connection, message, fds)
            case messages.Protect() | messages.AwaitCoded() | messages.Fetch():
                self._of_protection(connection, message)
            case messages.Detach():
                self._detach(connection, message.free)
            case _:
                raise Refusal("wrong", f"{type(message).__name__} is nothing that a keeper is told")

    def _of_trainer(
        self,
        connection: Connection,
        message: messages.Reserve | messages.Begin | messages.Complete | messages.Forget,
        fds: list[int],
    ) -> None:
        holding = connection.holding
        if holding is None:
            raise Refusal("wrong", "attach first")
        match message:
            case messages.Reserve():
                self._reserve(connection, holding, message)
            case messages.Begin():
                self._begin(connection, holding, message)
            case messages.Complete():
                self._complete(connection, holding, message, fds)
            case messages.Forget():
                self._forget(connection, holding, message)

    def _forget(self, connection: Connection, holding: Holding, said: messages.Forget) -> None:
        def answer() -> None:
            self._send(connection, messages.Forgotten(holding.control.committed()))

        holding.forget(said.step)
        if said.again:
            answer()
        else:
            self._protection.forgotten(holding.trainer, said.step, answer)

    def _of_protection(
        self, connection: Connection, message: messages.Protect | messages.AwaitCoded | messages.Fetch
    ) -> None:
        if connection.holding is None:
            raise Refusal("wrong", "attach first")
        trainer, answer = connection.holding.trainer, partial(self._send, connection)
        match message:
            case messages.Protect():
                self._protection.begin(message, self._join)
                answer(messages.Protecting())
            case messages.AwaitCoded():
                self._protection.await_coded(trainer, message, answer)
            case messages.Fetch():
                self._protection.fetch(trainer, message, answer)

    def _join(self, said: messages.Protect) -> Member:
        from .member import RunMember  # the network, and arrays: for keepers that are in a run alone

        return RunMember(f"{self._keeper[:40]}-{os.urandom(6).hex()}", said, self._protection, self.calls)

    def _attach(self, connection: Connection, said: messages.Attach, fds: list[int]) -> None:
        if connection.holding is not None or connection.waiting is not None:
            raise Refusal("wrong", "this connection is attached already")
        if (said.handed is not None) != (len(fds) == 2):
            raise Refusal("wrong", "a snapshot is handed over as its buffer and its table")
        kept, fds[:] = list(fds), []
        connection.waiting = (said, kept, time.monotonic() + limits.EXITING_S)
        self._attach_if_free(connection)

    def _attach_if_free(self, connection: Connection) -> None:
        """Once the trainer of that name is gone: killed ones close their socket late."""
        assert connection.waiting is not None
        said, fds, until = connection.waiting
        before = next((one for one in self._connections if self._holds(one, said.trainer)), None)
        if before is not None and before.pid and is_exiting(before.pid):
            self._drop(before)
        elif before is not None:
            if time.monotonic() < until:
                return
            connection.waiting = None
            channel.close_all(fds)
            text = f"trainer {said.trainer!r} of run {self._run!r} is attached by process {before.pid}: "
            raise Refusal("busy", f"{text}end it, or give each trainer of a host a name of its own")
        connection.waiting = None
        try:
            self._take_in(connection, said, fds)
        finally:
            channel.close_all(fds)

    @staticmethod
    def _holds(connection: Connection, trainer: str) -> bool:
        return connection.holding is not None and connection.holding.trainer == trainer

    def _take_in(self, connection: Connection, said: messages.Attach, fds: list[int]) -> None:
        holding = self._holdings.get(said.trainer)
        if holding is None:
            if len(self._holdings) >= limits.TRAINERS_MAX:
                raise Refusal("wrong", f"one keeper has {limits.TRAINERS_MAX} trainers at most")
            holding = Holding(said.trainer)
        try:
            if said.handed is not None:
                buffer, table = fds
                fds.clear()
                holding.adopt(said.handed, buffer, table)
            if said.bytes:
                self._expect(holding, said)
        except Refusal:
            if said.trainer not in self._holdings:
                holding.close()
            raise
        self._protection.freed.discard(said.trainer)
        self._holdings[said.trainer] = holding
        holding.gone_since, holding.orphan_s = None, said.orphan_s
        connection.holding = holding
        told, given = holding.described()
        self._send(connection, told, given)

    def _expect(self, holding: Holding, said: messages.Attach) -> None:
        """Raises Refusal where a state as large as it says cannot be kept and coded here."""
        parities = max(said.parities - self._protection.parity_bytes, 0)
        what = f"a state of {said.bytes >> 20} MiB"
        if parities:
            what += f", with {parities >> 20} MiB for others' parities,"
        self._populating.expect(holding.lacking(said.bytes) + parities, what)

    def _reserve(self, connection: Connection, holding: Holding, said: messages.Reserve) -> None:
        fd, capacity = holding.buffer(said.slot)
        if capacity >= said.bytes and fd >= 0:
            self._send(connection, messages.Reserved(said.slot, capacity), [fd])
            return
        if said.slot == holding.control.committed() or connection.filling:
            raise Refusal("wrong", "one buffer at a time is made, and not for the newest snapshot's")
        wanted = memory.whole_units(said.bytes)
        self._protection.given_up(fd)
        holding.place(said.slot, -1, 0)  # the one that is too small is freed first
        self._populating.expect(wanted, f"a buffer of {wanted >> 20} MiB")
        self._populating.start(
            f"pccl-{said.slot}",
            wanted,
            lambda: connection in self._connections,
            partial(self._take_filled, connection, holding, said.slot, wanted),
        )
        connection.filling.add(said.slot)

    def _take_filled(
        self,
        connection: Connection,
        holding: Holding,
        slot: int,
        capacity: int,
        fd: int,
        refusal: Refusal | None,
    ) -> None:
        connection.filling.discard(slot)
        if refusal is not None or connection.holding is not holding:
            os.close(fd)
            if refusal is not None and connection in self._connections:
                self._send(connection, refusal.answer)
            return
        holding.place(slot, fd, capacity)
        self._send(connection, messages.Reserved(slot, capacity), [fd])

    def _begin(self, connection: Connection, holding: Holding, said: messages.Begin) -> None:
        connection.refusal = None
        try:
            holding.begin(said.slot, said.step)
        except Refusal as refusal:
            connection.refusal = refusal

    def _complete(
        self, connection: Connection, holding: Holding, said: messages.Complete, fds: list[int]
    ) -> None:
        if connection.refusal is not None:
            raise connection.refusal
        if len(fds) != 1:
            raise Refusal("wrong", "a complete snapshot comes with its table")
        table = fds.pop()
        holding.complete(said, table)
        self._protection.freed.discard(holding.trainer)
        self._send(connection, messages.Completed(said.slot, said.step))

    def _detach(self, connection: Connection, free: bool) -> None:
        holding = connection.holding
        if holding is not None and free:
            connection.holding = None
            self._protection.freed.add(holding.trainer)
            del self._holdings[holding.trainer]
            self._protection.gone(holding.trainer)
            holding.close()
        self._send(connection, messages.Detached())
        self._drop(connection)
        self._over = self._over or (free and not self._holdings)

    def _free(self, connection: Connection, force: bool) -> None:
        attached = [one.pid for one in self._connections if one.holding is not None]
        if attached and not force:
            raise Refusal("busy", f"processes {attached} of run {self._run!r} are attached: end them first")
        held = sum(holding.memory_bytes for holding in self._holdings.values())
        self._send(connection, messages.Freed(held))
        self._over = True

    # --- Clocks.

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        self._protection.look()
        if 0 < self._accepts_at <= now:
            self._accepts_at = 0.0
            self._selector.register(self._listener, selectors.EVENT_READ)
        for connection in list(self._connections):
            if not connection.greeted and now - connection.born > limits.GREETING_S:
                self._drop(connection, TimeoutError("it said nothing"))
            elif connection.waiting is not None:
                self._retry(connection)
        for name, holding in list(self._holdings.items()):
            if holding.gone_since is not None and now - holding.gone_since > holding.orphan_s:
                logger.warning("trainer %r is gone for %g s: its memory is freed", name, holding.orphan_s)
                self._protection.freed.add(name)  # or other keepers would bring it back again and again
                del self._holdings[name]
                holding.close()
        if self._holdings or self._connections:
            self._idle_since = now
        elif self._protection.emptied:
            self._over = True
        elif now - self._idle_since > self._orphan_s:
            self._over = True

    def _retry(self, connection: Connection) -> None:
        self._guarded(connection, lambda: self._attach_if_free(connection))

    def _guarded(self, connection: Connection, action: Callable[[], None]) -> None:
        try:
            action()
        except Refusal as refusal:
            self._send(connection, refusal.answer)
        except Exception as error:
            self._drop(connection, error)
