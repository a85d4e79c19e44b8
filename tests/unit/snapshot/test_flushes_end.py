"""Buffers that the disk reads, and that larger ones replace meanwhile; views of a snapshot that failed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pccl_py.snapshot import memory, verified
from pccl_py.snapshot.flushes import Flushes
from pccl_py.snapshot.verified import Verified

SIZE = 2 << 20


def mapped(name: str) -> int:
    return sum(f"memfd:{name}" in line for line in Path("/proc/self/maps").read_text().splitlines())


class Saves:
    """A Checkpointer whose disk is as fast as the test says."""

    every = None
    free = False

    def save_captured(self, step: int, content: Any, taken: Any, capture: Any, memory: Any) -> Any:
        return SimpleNamespace(memory=memory, wait_free=lambda timeout_s: self.free)


def test_a_buffer_that_is_replaced_while_it_is_flushed_is_given_back_once_it_is() -> None:
    """It stayed until close()."""
    saves = Saves()
    flushes = Flushes(1, saves, None)
    old, new = (memory.make(name, SIZE) for name in ("flushed-old", "flushed-new"))
    nothing: Any = None
    flushes.begin(1, nothing, nothing, nothing, old, [old])
    os.close(old)
    flushes.begin(2, nothing, nothing, nothing, new, [new])
    assert mapped("flushed-old") == 1, "the disk reads it"
    saves.free = True
    flushes.keep_only([new])
    assert mapped("flushed-old") == 0 and mapped("flushed-new") == 1
    flushes.await_all(0)
    assert mapped("flushed-new") == 0
    os.close(new)


def test_what_failed_is_not_hidden_by_who_still_looks_at_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view in the trace of an error kept the mapping, and a BufferError was raised in the error's place."""
    fd = memory.make("looked-at", SIZE)
    record = SimpleNamespace(shard=SimpleNamespace(bytes=SIZE))
    table = SimpleNamespace(record=record, crcs=b"", block_bytes=SIZE)
    monkeypatch.setattr(verified, "decode", lambda *_: table)
    kept: Any = SimpleNamespace(step=1, bytes=SIZE, fd=fd, table=lambda: b"")
    with pytest.raises(RuntimeError, match="the peer is gone"), Verified(kept) as found:
        view = np.frombuffer(found.data, np.uint8)
        raise RuntimeError("the peer is gone")
    assert view[0] == 0
    os.close(fd)
