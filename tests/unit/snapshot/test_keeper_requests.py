"""Answers of a keeper that come late."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("torch")

from pccl_py.snapshot import channel, messages
from pccl_py.snapshot.keeper_client import KeeperLost, _request


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    ours, keepers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, keepers:
        ours.settimeout(0.05)
        with pytest.raises(KeeperLost, match="does not answer"):
            _request(ours, messages.AwaitCoded(0, 0.0), messages.Coded)
        try:
            channel.send(keepers, messages.Coded(5, 2, "", 0, 0, 0))
        except OSError:
            pass  # nobody is there for it
        with pytest.raises(KeeperLost, match="is gone"):
            _request(ours, messages.Detach(False), messages.Detached)
