"""A keeper without memory for the parities of others: nothing is coded, and it says what it would take."""

from __future__ import annotations

import pytest

from pccl_py.snapshot import memory, messages
from pccl_py.snapshot.calls import Calls
from pccl_py.snapshot.coding import Coding
from pccl_py.snapshot.generation import Lane, Share, arranged
from pccl_py.snapshot.protection import Protection

SAID = messages.Protect("nowhere:1", "", False, False, "", "", "", "a", 1, 0)


def test_parities_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [Share("k0", "a", ()), Share("k1", "b", (Lane("t", 5, 200 << 20, 100, 1),))]
    generation = arranged(1, 1, shares)
    calls, protection = Calls(), Protection({}, set, 60.0)
    coding = Coding("k0", SAID, protection, calls)
    monkeypatch.setattr(memory, "available", lambda: 100 << 20)
    share = coding._prepared(generation)
    assert share is not None and not coding._make_room(share)
    calls.run()
    assert "needs 200 MiB of shared memory, and 100 MiB can be had" in protection.fault
    monkeypatch.setattr(memory, "available", lambda: 200 << 20)
    assert coding._make_room(share)
