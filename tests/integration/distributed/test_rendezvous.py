"""Workers that torchrun starts anew meet at the store of those before them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch.distributed as dist

from pccl_py.distributed import rendezvous
from pccl_py.errors import ConnectError, UsageError

ROOT = Path(__file__).resolve().parents[3]
LIVES = """
import os, signal, sys, time
import torch, torch.distributed as dist
import pccl_py
life, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
if life:
    time.sleep(1.5 * (1 + rank))  # the master of the life before has ended
dist.init_process_group("pccl")
x = torch.full((1000,), rank + 1.0 + 10 * life)
dist.all_reduce(x)
if life == 0 and rank == 0:
    os.kill(os.getpid(), signal.SIGKILL)
if life == 0:
    time.sleep(60)
os.write(1, f"life {life}: {x.unique().tolist()}\\n".encode())  # at once: both ranks share the pipe
"""


def test_workers_started_anew_by_torchrun_do_not_look_for_the_master_of_the_dead(tmp_path: Path) -> None:
    (tmp_path / "lives.py").write_text(LIVES)
    alone = ["--standalone", "--local-addr", "127.0.0.1"]  # else torchrun asks who its host is, and may wait
    command = [sys.executable, "-m", "torch.distributed.run", *alone, "--max-restarts", "2"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(tmp_path / "lives.py")],
        env=os.environ | {"PYTHONPATH": str(ROOT), "PCCL_ORPHAN_S": "0.5"},
        text=True,
        capture_output=True,
        timeout=50,
    )
    assert done.stdout.splitlines() == ["life 1: [23.0]"] * 2, done.stderr
    assert done.returncode == 0


def test_what_failed_for_those_before_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    monkeypatch.setenv("PCCL_MASTER_LISTEN", "203.0.113.1:1")  # not of this host
    for _ in range(2):
        with pytest.raises(ConnectError):
            rendezvous.meet(store, "w")
    monkeypatch.delenv("PCCL_MASTER_LISTEN")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    meeting = rendezvous.meet(store, "w", hold=True)
    assert rendezvous.meet(store, "w") == meeting
    with meeting.join(0, 1, 10) as member:
        assert member.world_size == 1


def test_who_asks_for_encryption_does_not_go_on_in_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    assert not rendezvous.meet(store, "drawn").encrypt
    monkeypatch.setenv("PCCL_ENCRYPT", "yes")
    with pytest.raises(UsageError, match="PCCL_ENCRYPT is 'yes' here, and the run at this store does not"):
        rendezvous.meet(store, "drawn")
    assert rendezvous.meet(store, "asked").encrypt
    monkeypatch.setenv("PCCL_ENCRYPT", "no")
    with pytest.raises(UsageError, match="PCCL_ENCRYPT is 'no' here, and the run at this store encrypts"):
        rendezvous.meet(store, "asked")


def test_a_secret_of_ones_own_encrypts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "run.key"
    secret.touch(mode=0o600)
    secret.write_text("a secret of one's own\n")
    monkeypatch.setenv("PCCL_SECRET_FILE", str(secret))
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    meeting = rendezvous.meet(store, "w")
    assert (meeting.secret, meeting.encrypt) == (b"a secret of one's own", True)
    with meeting.join(0, 1, 10) as member:
        assert member.world_size == 1


def test_a_meeting_that_lives_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    first = rendezvous.meet(store, "w", hold=True)
    for life in ("1", "1", "2"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", life)
        assert rendezvous.meet(store, "w") == first
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert rendezvous.meet(store, "w") == first
