"""What a keeper holds is checked: each parity, each block of a snapshot, piece by piece."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pccl_py.checkpoint.manifest import Shard
from pccl_py.checkpoint.rank_record import RankRecord
from pccl_py.snapshot import native
from pccl_py.snapshot.generation import Generation, Lane, arranged
from pccl_py.snapshot.generation import Share as Said
from pccl_py.snapshot.scrub import PIECE_BYTES, SETTLED_S, Scrub
from pccl_py.snapshot.share import Share
from pccl_py.snapshot.table import Table, encode

BLOCK, BYTES = 1 << 20, 5_000_000


class Kept:
    """In place of what the loop knows."""

    def __init__(self) -> None:
        self.spoilt: list[Lane] = []
        self.whole = True

    def intact(self, lanes: tuple[Lane, ...]) -> bool:
        return self.whole

    def spoil(self, lane: Lane) -> None:
        self.spoilt.append(lane)


def generation(lane: Lane) -> Generation:
    return arranged(1, 1, [Said("k0", "a", (lane,)), Said("k1", "b", ())])


@pytest.fixture
def held() -> Any:
    data = np.random.default_rng(1).integers(0, 256, BYTES + 100, np.uint8)
    crcs = [native.crc32(data[at : min(at + BLOCK, BYTES)].data) for at in range(0, BYTES, BLOCK)]
    shard = Shard("shard-00000-of-00001.safetensors", BYTES, 4096, struct.pack(f"<{len(crcs)}I", *crcs))
    words = encode(Table(1, BLOCK, RankRecord(0, shard, {})))
    lane = Lane("t", 5, BYTES, len(words), 1)
    parities = np.random.default_rng(2).integers(0, 256, (1, 3 * PIECE_BYTES), np.uint8)
    share = Share(generation(lane), (lane,), [data], [parities], {"t": words})
    coding: Any = SimpleNamespace(
        share=share, protection=Kept(), calls=SimpleNamespace(ask=lambda question: question())
    )
    clock = SimpleNamespace(now=0.0)
    scrub = Scrub(coding, lambda: clock.now)
    return SimpleNamespace(coding=coding, scrub=scrub, clock=clock, data=data, parities=parities, lane=lane)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes whose checksums were made, piece by piece."""
    found, crc32 = [], native.crc32

    def counted(data: Any) -> int:
        found.append(len(data))
        return crc32(data)

    monkeypatch.setattr(native, "crc32", counted)
    return found


def test_a_bit_of_a_snapshot(held: Any) -> None:
    held.scrub.all()
    assert not held.coding.protection.spoilt
    held.data[BYTES - 1] ^= 1
    held.scrub.all()
    assert held.coding.protection.spoilt == [held.lane] and held.coding.share is not None


def test_behind_its_end_anything_may_be(held: Any) -> None:
    held.data[BYTES] ^= 1
    held.scrub.all()
    assert not held.coding.protection.spoilt


def test_a_snapshot_that_is_written_over_is_not_damaged(held: Any) -> None:
    held.scrub.all()
    held.coding.protection.whole = False
    held.data[:] = 0
    held.scrub.all()
    assert not held.coding.protection.spoilt


def test_a_bit_of_a_parity(held: Any) -> None:
    held.scrub.all()
    held.parities[0, -1] ^= 1
    held.scrub.all()
    assert held.coding.share is None and not held.coding.protection.spoilt
    held.scrub.all()


def test_a_little_at_a_time_comes_to_all(held: Any, read: list[int]) -> None:
    """Each parity is read first of all: it is known from then on."""
    held.scrub.some(1)
    held.clock.now = SETTLED_S
    pieces = 3 + -(-BYTES // BLOCK)
    for turn in range(pieces):
        held.scrub.some(1)
        assert len(read) == turn + 1 and read[-1] <= PIECE_BYTES
    assert sum(read) == BYTES + held.parities.nbytes
    held.parities[0, -1] ^= 1
    for _ in range(3):
        assert held.coding.share is not None
        held.scrub.some(1)
    assert held.coding.share is None


def test_what_the_next_snapshot_replaces_at_once_costs_nothing(held: Any, read: list[int]) -> None:
    """Neither its bytes nor its table, which takes milliseconds, is looked at: a training has the cores."""
    words = held.coding.share.tables
    for _ in range(4):
        held.coding.share = Share(generation(held.lane), (held.lane,), [held.data], [held.parities], {})
        held.scrub.some()
        held.clock.now += SETTLED_S / 2
        held.scrub.some()
    assert not read
    held.coding.share.tables = words
    held.clock.now += SETTLED_S / 2
    held.scrub.some()
    assert sum(read) == BYTES + held.parities.nbytes


def test_a_snapshot_and_a_parity_that_are_both_damaged(held: Any) -> None:
    held.scrub.all()
    held.data[3] ^= 1
    held.parities[0, 5] ^= 1
    held.scrub.all()
    assert held.coding.protection.spoilt == [held.lane] and held.coding.share is None
