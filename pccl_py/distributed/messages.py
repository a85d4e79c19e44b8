"""Messages between two ranks of a group: torch's send, recv, and recv from whoever sends first."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..arguments import TAG_MAX
from ..errors import UsageError
from ..transfers import ANYBODY
from .group import Group
from .pending import Pending
from .staged import lend


class Message(Pending):
    """`source`: the rank that it came from, once it is there."""

    source = -1

    def _committed(self, contributors: Sequence[int]) -> None:
        sender = contributors[0]
        self.source = self._group.ids.index(sender) if sender in self._group.ids else -1


def send(group: Group, tensors: Sequence[torch.Tensor], to: int, tag: int) -> Message:
    return _post(group, tensors, (group.id, _other(group, to)), tag)


def recv(group: Group, tensors: Sequence[torch.Tensor], source: int, tag: int) -> Message:
    return _post(group, tensors, (_other(group, source), group.id), tag)


def recv_any(group: Group, tensors: Sequence[torch.Tensor], tag: int) -> Message:
    """The first message with that tag. A death while none has come raises: its sender may be the dead one."""
    return _post(group, tensors, (ANYBODY, group.id), tag)


def _other(group: Group, rank: int) -> int:
    peer = group.peer_of(rank)
    if peer == group.id:
        raise UsageError(f"rank {rank} is this one: it cannot send to itself")
    return peer


def _post(group: Group, tensors: Sequence[torch.Tensor], ends: tuple[int, int], tag: int) -> Message:
    if not 0 <= tag <= TAG_MAX:
        raise UsageError(f"tag={tag}: messages have tags from 0 to {TAG_MAX}")
    sent = ends[0] == group.id
    with group.lock:  # messages of one tag travel in the order of the calls
        lent = [lend(tensor, "the message", reduced=False, written=not sent) for tensor in tensors]
        work = group.member.message([tensor for tensor, _ in lent], ends, tag, timeout=group.timeout_s)
        message = Message(group, work, tensors, [back for _, back in lent if back is not None])
        group.keep(message)
    return message
