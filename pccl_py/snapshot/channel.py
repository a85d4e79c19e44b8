"""One connection between a trainer and a keeper: packets with descriptors, and the greeting of both sides.

The peer's user is checked before anything is read: the kernel says who it is (SO_PEERCRED).
"""

from __future__ import annotations

import array
import os
import re
import socket
import struct
from collections.abc import Sequence

from ..errors import ProtocolError, RefusedError, VersionError
from . import limits, messages
from .messages import Message

_GREETING = re.compile(rb"pccl-keeper ([0-9]{1,9})")
_CREDENTIALS = struct.Struct("3i")
_FD = struct.Struct("i")


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end; 0: it is in another namespace of processes. Raises RefusedError for
    another user's."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    if uid != os.getuid():
        raise RefusedError(f"the process at the keeper's socket is of user {uid}, not of {os.getuid()}")
    return int(pid)


def greeting() -> bytes:
    return b"pccl-keeper %d" % limits.PROTOCOL


def check_greeting(data: bytes, who: str) -> None:
    """Raises VersionError, or ProtocolError for what is no greeting at all."""
    found = _GREETING.fullmatch(data)
    if found is None:
        raise ProtocolError(f"{who} does not greet as one: something else has this socket")
    if int(found[1]) != limits.PROTOCOL:
        raise VersionError(
            f"{who} speaks version {int(found[1])} of the protocol, and this release {limits.PROTOCOL}: "
            "run the release that started it, or end it with that one's `python -m pccl_py snapshots free`"
        )


def send(connection: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Whole, or an OSError."""
    send_raw(connection, messages.encode(message), fds)


def send_raw(connection: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def receive_raw(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, which are the caller's. Empty: the other side is gone. Raises
    ProtocolError, OSError."""
    room = socket.CMSG_SPACE(limits.FDS_MAX * _FD.size)
    data, control, flags, _ = connection.recvmsg(limits.MESSAGE_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, raw in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(raw) // _FD.size * _FD.size
            fds += [one for (one,) in _FD.iter_unpack(raw[:whole])]
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise ProtocolError("a packet between trainer and keeper is longer than any message")
    return data, fds


def receive(connection: socket.socket) -> tuple[Message, list[int]]:
    """Raises ConnectionError where the other side is gone."""
    data, fds = receive_raw(connection)
    try:
        if not data:
            raise ConnectionResetError("the keeper's connection was closed")
        return messages.decode(data), fds
    except BaseException:
        close_all(fds)
        raise


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
