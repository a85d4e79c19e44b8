"""What anybody of this user may ask a keeper, without being a trainer."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TypeVar

from ..errors import ProtocolError, SnapshotError
from . import channel, launch, messages
from .messages import Message
from .places import sockets

M = TypeVar("M", bound=Message)
TIMEOUT_S = 5.0

__all__ = ["free", "sockets", "summary"]


def summary(path: Path) -> messages.Summary | None:
    """None: no keeper listens there any more."""
    connection = launch.connect(path, TIMEOUT_S)
    if connection is None:
        return None
    with connection:
        return _asked(connection, messages.AskSummary(), messages.Summary)


def free(path: Path, *, force: bool) -> int:
    """Ends the keeper; the bytes that it held. Raises SnapshotError while trainers are attached."""
    connection = launch.connect(path, TIMEOUT_S)
    if connection is None:
        return 0
    with connection:
        return _asked(connection, messages.Free(force), messages.Freed).bytes


def _asked(connection: socket.socket, message: Message, wanted: type[M]) -> M:
    channel.send(connection, message)
    answer, fds = channel.receive(connection)
    channel.close_all(fds)
    if isinstance(answer, messages.Refused):
        raise SnapshotError(answer.text)
    if not isinstance(answer, wanted):
        raise ProtocolError(f"the keeper answered {type(answer).__name__}")
    return answer
