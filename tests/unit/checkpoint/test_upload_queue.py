"""Uploads to a folder by fsspec: what a killed run has left at the remote keeps nobody from beginning."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import pccl_py as pccl
from pccl_py.checkpoint import lease, worker_thread
from pccl_py.errors import BusyError, CheckpointError

SHARD = "shard-00000-of-00001.safetensors"


def saver(root: Path) -> pccl.Checkpointer:
    options: dict[str, Any] = {"pool_bytes": 32 << 20, "timeout_s": 30.0}
    return pccl.Checkpointer(f"file://{root}/remote", local=root / "local", **options)


def saved(root: Path) -> None:
    with saver(root) as saving:
        saving.save(1, {"x": {"w": torch.ones(100)}})
        saving.wait(level="remote")


def put_owner(root: Path, beat: int) -> None:
    words = {"run": "another", "host": "h", "pid": 1, "beat": beat}
    draft = root / "owner"
    draft.write_text(json.dumps(words))
    draft.rename(root / "remote" / lease.OWNER)


def test_a_url_of_a_run_that_was_killed_is_taken_over_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that had to begin anew and again, within that minute, must be able to: it loads, and saves."""
    monkeypatch.setattr(lease, "LEASE_S", 1.0)
    saved(tmp_path)
    shutil.rmtree(tmp_path / "remote" / "step-000000000001")  # so that there is something to send at once
    put_owner(tmp_path, 1)
    with saver(tmp_path) as saving:
        for _ in range(100):
            if saving.stats.remote_fault:
                break
            time.sleep(0.01)
        assert "is written by process 1" in str(saving.stats.remote_fault)
        state = {"w": torch.zeros(100)}
        assert saving.load({"x": state}).step == 1
        saving.save(2, {"x": state})
        saving.wait(20, level="remote")
        assert saving.steps(level="remote") == [1, 2] and saving.stats.remote_fault is None


def test_a_url_of_a_run_that_lives_is_told_once_and_not_by_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 0.8)
    saved(tmp_path)
    shutil.rmtree(tmp_path / "remote" / "step-000000000001")
    put_owner(tmp_path, 0)
    ended = threading.Event()

    def live() -> None:
        beat = 0
        while not ended.wait(0.1):
            put_owner(tmp_path, beat := beat + 1)

    other = threading.Thread(target=live)
    other.start()
    try:
        saving = saver(tmp_path)
        with pytest.raises(BusyError, match="give each run its own URL"):
            saving.wait(10, level="remote")
        assert saving.load({"x": {"w": torch.zeros(100)}}).step == 1
        saving.save(2, {"x": {"w": torch.zeros(100)}})
        saving.wait()
    finally:
        ended.set()
        other.join()
    saving.close()
    assert saving.stats.uploaded == 2


def test_what_a_killed_upload_had_begun_is_swept_with_the_next(tmp_path: Path) -> None:
    saved(tmp_path)
    half = tmp_path / "remote" / "step-000000000009"
    half.mkdir()
    (half / f"{SHARD}.part").write_bytes(b"half")
    (tmp_path / "local" / ".upload-00000.json.part").write_bytes(b"{")
    (tmp_path / "local" / ".upload-00003.json").write_bytes(b"{}")
    (tmp_path / "remote" / "mine.part").write_bytes(b"x")
    (tmp_path / "remote" / "step-000000000008").mkdir()
    (tmp_path / "remote" / "mine").mkdir()
    with saver(tmp_path) as saving:
        saving.save(2, {"x": {"w": torch.ones(100)}})
        saving.wait(level="remote")
    left = sorted(path.name for path in (tmp_path / "remote").iterdir() if not path.name.startswith("."))
    assert left == ["mine", "mine.part", "step-000000000001", "step-000000000002"]
    assert not list((tmp_path / "local").glob(".upload-*"))


def test_closing_does_not_wait_for_a_store_that_hangs_and_names_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_thread, "END_S", 0.2)
    answers = threading.Event()
    options: dict[str, Any] = {"pool_bytes": 32 << 20, "timeout_s": 0.5}
    saving = pccl.Checkpointer(f"file://{tmp_path}/remote", local=tmp_path / "local", **options)
    assert saving._uploads is not None
    monkeypatch.setattr(saving._uploads._remote, "publish", lambda *_: answers.wait(30))
    saving.save(1, {"x": {"w": torch.ones(100)}})
    saving._pipeline.wait(10)
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="step 1 is not at"):
        saving.close()
    assert time.monotonic() - begun < 5
    assert saving._uploads.thread.doing == "publish step 1"
    with pytest.raises(BusyError):  # what is late may still write there
        saver(tmp_path)
    answers.set()
    saving._uploads.thread._thread.join(20)
    with saver(tmp_path) as again:
        again.wait(level="remote")
        assert again.steps(level="remote") == [1]
