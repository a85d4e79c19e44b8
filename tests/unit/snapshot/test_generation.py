"""Which blocks are coded with which: whatever keepers are lost, up to the parity, every block comes back."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from pccl_py.coded_calls import CodedSum
from pccl_py.errors import ProtocolError
from pccl_py.snapshot import generation as gen
from pccl_py.snapshot.generation import Generation, Lane, Share, arranged


def product(a: int, b: int) -> int:
    total = 0
    while b:
        total ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return total


TABLE = np.array([[product(a, b) for b in range(256)] for a in range(256)], np.uint8)


def shares(count: int, domains: int, lanes: int = 1) -> list[Share]:
    return [
        Share(
            f"k{at}",
            f"d{at % domains}",
            tuple(Lane(f"t{at}.{lane}", 5, 1000 + 37 * at + lane, 1, 0) for lane in range(lanes)),
        )
        for at in range(count)
    ]


def summed(one: CodedSum, blocks: dict[int, list[np.ndarray]], width: int) -> np.ndarray:
    total = np.zeros(width, np.uint8)
    for rank, number, coefficient in one.terms:
        block = blocks[rank][number]
        total[: len(block)] ^= TABLE[coefficient][block]
    return total


def cut(data: np.ndarray, width: int, k: int) -> list[np.ndarray]:
    return [data[width * at : width * (at + 1)] for at in range(k)]


@pytest.mark.parametrize(("count", "parity"), [(2, 1), (3, 2), (4, 1), (5, 2), (6, 2), (11, 3), (3, 5)])
def test_what_is_coded_comes_back(count: int, parity: int) -> None:
    made = arranged(1, parity, shares(count, count))
    assert gen.decode(made.encode()) == made
    ranks = {f"k{at}": at for at in range(count)}
    width = made.width(0)
    places = {lane.trainer: (place, lane) for place, lane in made.places().values()}
    data = {t: np.random.default_rng(len(t) + lane.bytes).integers(0, 256, lane.bytes, np.uint8)
            for t, (_, lane) in places.items()}  # fmt: skip
    blocks = {}
    for name, rank in ranks.items():
        found = made.share_of(name)
        assert found is not None
        group, _, share = found
        blocks[rank] = cut(data[share.lanes[0].trainer], width, made.code(group)[0])
    sums = made.parities(0, ranks)
    for name, rank in ranks.items():
        found = made.share_of(name)
        assert found is not None
        group, slot, _ = found
        own = [one for one in sums if one.owner == rank]
        rows = made.parity_rows(group, slot)
        assert sorted(rows) == list(range(len(own)))
        by_row = dict(zip(rows, (summed(one, blocks, width) for one in own), strict=True))
        blocks[rank] = blocks[rank] + [by_row[row] for row in sorted(by_row)]
    losses = made.losses()
    assert losses == min(parity, count - 1)
    for lost in combinations(ranks, losses):
        present = {name: rank for name, rank in ranks.items() if name not in lost}
        for name in lost:
            trainer = f"t{name[1:]}.0"
            place, lane = places[trainer]
            told = made.rescue(place, present, 0)
            assert told is not None
            whole = np.concatenate([summed(one, blocks, width) for one in told])
            assert np.array_equal(whole[: lane.bytes], data[trainer])


def test_too_few_are_left() -> None:
    made = arranged(1, 1, shares(4, 4))
    place, _ = made.places()["t0.0"]
    assert made.rescue(place, {"k2": 0, "k3": 1}, 0) is None
    alone = arranged(1, 2, shares(1, 1))
    assert alone.losses() == 0 and alone.rescue(alone.places()["t0.0"][0], {"k0": 0}, 0) is None


def test_domains() -> None:
    assert arranged(1, 1, shares(4, 2)).losses() == 0
    assert arranged(1, 2, shares(4, 2)).losses() == 1
    assert arranged(1, 2, shares(16, 16)).losses() == 2
    assert arranged(1, 2, shares(16, 8)).losses() == 2  # two groups, one keeper of each domain in either


def test_losses_after_some() -> None:
    made = arranged(1, 2, shares(16, 16))
    first, second = ({share.keeper for share in group.shares} for group in made.groups)
    assert made.losses({min(first)}) == made.losses({min(first), min(second)}) == 1
    assert made.losses(set(sorted(first)[:2])) == made.losses(first) == 0
    assert arranged(1, 2, shares(4, 2)).losses({"k0"}) == 0, "the other domain has two"


def test_hostile_descriptions() -> None:
    twice = Generation(1, 1, (gen.Group((shares(1, 1)[0], shares(1, 1)[0])),), ())
    for data in (twice.encode(), b"{}", b"[]", Generation(1, 1, (gen.Group(()),), ()).encode()):
        with pytest.raises(ProtocolError):
            gen.decode(data)
