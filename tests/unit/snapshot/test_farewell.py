"""A keeper's last words: what is freed is heard by the others, or they bring it back for nobody."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pccl_py.errors import CollectiveError
from pccl_py.snapshot import member, messages
from pccl_py.snapshot.calls import Calls
from pccl_py.snapshot.holding import Holding
from pccl_py.snapshot.member import RunMember
from pccl_py.snapshot.protection import Protection
from pccl_py.snapshot.server import Server

SAID = messages.Protect("nowhere:1", "", False, False, "", "", "", "a", 1, 0)


class Alone:
    """In place of a communicator."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Alone:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_a_last_round_that_fails_is_begun_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else dies during the farewell."""
    ends = []

    def one_round(self: RunMember, comm: Any) -> float:
        if self._over.is_set():
            ends.append(len(ends))
            if len(ends) < 3:
                raise CollectiveError("a peer has left")
        return 0.01

    monkeypatch.setattr(member, "Communicator", Alone)
    monkeypatch.setattr(RunMember, "_round", one_round)
    one = RunMember("k", SAID, Protection({}, set, 60.0), Calls())
    one.stop()
    assert ends == [0, 1, 2]


def test_what_an_orphan_held_is_freed_for_all(tmp_path: Path) -> None:
    """Else the others would bring it back as soon as it is gone, again and again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "socket"))
        server = Server(listening, "run", "host", 60.0)
        orphan = Holding("t")
        orphan.gone_since, orphan.orphan_s = time.monotonic() - 9.0, 5.0
        server._holdings["t"] = orphan
        server._look_at_clocks()
        assert server._protection.freed == {"t"} and not server._holdings
        server.close()


@pytest.mark.parametrize("freed", [True, False])
def test_the_last_copy_goes_where_its_trainer_is(tmp_path: Path, freed: bool) -> None:
    """A keeper whose own trainer has freed its snapshot ends with it; another one waits for its trainer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / "socket"))
        server = Server(listening, "run", "host", 60.0)
        server._holdings["of another"] = Holding("of another")
        if freed:
            server._protection.freed.add("own")
        server._protection.drop([], ["of another"])
        server._look_at_clocks()
        assert server._over is freed and not server._holdings
        server.close()
