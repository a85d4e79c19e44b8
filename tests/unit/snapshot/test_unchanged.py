"""Parities of what has changed since the generation before are, bit for bit, those that are made anew; and
less is sent for them. Keepers are threads here, and what they send is summed up in one place."""

from __future__ import annotations

import threading
import zlib
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py.coded_calls import CodedSum
from pccl_py.snapshot import agreeing, differences, lane_coder, unchanged
from pccl_py.snapshot.differences import Before, Differences, agreed
from pccl_py.snapshot.generation import Generation, Identical, Lane, Range, Share, arranged
from pccl_py.snapshot.identical import Checksums
from pccl_py.snapshot.lane_coder import LaneCoder
from pccl_py.snapshot.share import Bytes
from pccl_py.snapshot.share import Share as Held
from tests.threads import in_threads

from .test_generation import summed

BLOCK = 64


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (differences, lane_coder):
        monkeypatch.setattr(module, "BLOCK_BYTES", BLOCK)
    monkeypatch.setattr(unchanged, "DIFFERENCE_BYTES", 6 * BLOCK)


class Network:
    """Of keepers that are threads. `sent`: bytes, as each but the owner of a sum sends its width for it."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.sent = 0
        self.operations = 0
        self._barrier = threading.Barrier(world, action=self._meet)
        self._said: dict[int, Any] = {}
        self._told: list[bytes] = []

    def coded(
        self, rank: int, blocks: list[Bytes], out: list[Bytes], sums: list[CodedSum], width: int
    ) -> None:
        self._said[rank] = (blocks, out, sums, width)
        self._barrier.wait(20)

    def to_all(self, rank: int, words: bytes) -> list[bytes]:
        self._said[rank] = words
        self._barrier.wait(20)
        return self._told

    def _meet(self) -> None:
        said, self._said = self._said, {}
        if isinstance(said[0], bytes):
            self._told = [said[rank] for rank in range(self.world)]
            return
        _, _, sums, width = said[0]
        assert all(one[2:] == (sums, width) for one in said.values())
        blocks = {rank: one[0] for rank, one in said.items()}
        outputs = {rank: iter(one[1]) for rank, one in said.items()}
        for one in sums:
            next(outputs[one.owner])[:] = summed(one, blocks, width)
            self.sent += width * sum(term.rank != one.owner for term in one.terms)
        assert all(next(left, None) is None for left in outputs.values())
        self.operations += 1


class Keeper:
    """What LaneCoder and agreed() want of a communicator."""

    def __init__(self, network: Network, rank: int) -> None:
        self.network, self.rank = network, rank

    def coded_reduce_scatter(
        self, blocks: Any, out: Any, sums: Any, *, block_bytes: int, rate_limit: Any, timeout: float
    ) -> None:
        self.network.coded(self.rank, blocks, out, sums, block_bytes)


def checksums(data: Bytes) -> Checksums:
    cut = [zlib.crc32(data[at : at + BLOCK].tobytes()) for at in range(0, len(data), BLOCK)]
    return Checksums(len(data), np.array(cut, "<u4"))


def held(generation: Generation, keeper: str, data: list[Bytes]) -> Held:
    found = generation.share_of(keeper)
    assert found is not None
    group, _, share = found
    m = generation.code(group)[1]
    parities = [np.full((m, generation.width(lane)), 0xEE, np.uint8) for lane in range(generation.lanes)]
    return Held(generation, share.lanes, data, parities)


def in_order(generation: Generation) -> list[Share]:
    return [share for group in generation.groups for share in group.shares]


class Run:
    """Keepers with `before`, coded anew, and then with `now`: bytes by keeper and lane."""

    def __init__(
        self, generation: Generation, before: dict[str, list[Bytes]], now: dict[str, list[Bytes]]
    ) -> None:
        self.generation = generation
        self.keepers = [share.keeper for share in in_order(generation)]
        self.ranks = {name: rank for rank, name in enumerate(sorted(self.keepers))}
        self.before, self.now = before, now
        self.network = Network(len(self.keepers))
        self.old = {name: held(generation, name, before[name]) for name in self.keepers}
        self.anew(self.old)
        self.network.sent = 0
        self.new = {name: held(generation, name, now[name]) for name in self.keepers}

    def each(self, play: Any) -> dict[str, Any]:
        names = sorted(self.keepers)
        return dict(zip(names, in_threads([partial(play, name) for name in names], 40), strict=True))

    def anew(self, shares: dict[str, Held]) -> None:
        def play(name: str) -> None:
            for lane in range(self.generation.lanes):
                self.coder(shares[name], name, lane).anew()

        self.each(play)

    def coder(self, share: Held, name: str, lane: int) -> LaneCoder:
        comm: Any = Keeper(self.network, self.ranks[name])
        return LaneCoder(comm, share, lane, self.ranks, None, 1.0)

    def again(self) -> dict[str, Differences | None]:
        old = [[checksums(data) for data in self.before[name]] for name in self.keepers]
        new = [[checksums(data) for data in self.now[name]] for name in self.keepers]

        def play(name: str) -> Differences | None:
            comm: Any = Keeper(self.network, self.ranks[name])
            told = agreed(comm, Before(self.old[name], old, 0), self.new[name], new, self.ranks)
            for lane in range(self.generation.lanes if told is not None else 0):
                self.coder(self.new[name], name, lane).differences(told)
            return told

        return self.each(play)

    def check(self) -> None:
        wanted = {name: held(self.generation, name, self.now[name]) for name in self.keepers}
        self.anew(wanted)
        for name in self.keepers:
            for one, right in zip(self.new[name].parities, wanted[name].parities, strict=True):
                assert np.array_equal(one, right), name


@pytest.fixture(autouse=True)
def told_by_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "to_all", lambda comm, words, *_: comm.network.to_all(comm.rank, words))


def run_of(
    sizes: list[list[int]], parity: int, identical: tuple[Identical, ...], seed: int, part: float
) -> Run:
    """`part`: of the blocks that have changed, about."""
    draw = np.random.default_rng(seed)
    shares = [
        Share(
            f"k{at}", f"d{at}", tuple(Lane(f"t{at}.{lane}", 5, size, 1, 0) for lane, size in enumerate(own))
        )
        for at, own in enumerate(sizes)
    ]
    made = arranged(1, parity, shares)
    generation = Generation(1, made.parity, made.groups, (), identical)
    before = {
        f"k{at}": [draw.integers(0, 256, size, np.uint8) for size in own] for at, own in enumerate(sizes)
    }
    now = {name: [data.copy() for data in own] for name, own in before.items()}
    for own in now.values():
        for data in own:
            for at in range(0, len(data), BLOCK):
                if draw.random() < part:
                    data[at + draw.integers(0, min(BLOCK, len(data) - at))] ^= 1 + draw.integers(0, 255)
    return Run(generation, before, now)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.lists(st.integers(0, 40 * BLOCK), max_size=2), min_size=2, max_size=6),
    parity=st.integers(1, 3),
    seed=st.integers(0, 1 << 31),
    part=st.sampled_from([0.0, 0.02, 0.1, 0.5, 0.9]),
)
def test_parities_are_those_made_anew(sizes: list[list[int]], parity: int, seed: int, part: float) -> None:
    run = run_of(sizes, parity, (), seed, part)
    told = run.again()
    if len({one is None for one in told.values()}) > 1:
        pytest.fail("keepers do not agree on whether they code anew")
    if all(one is not None for one in told.values()):
        run.check()


def test_beside_what_all_have_alike() -> None:
    identical = (Identical((Range(5 * BLOCK, 11 * BLOCK),)),)
    run = run_of([[30 * BLOCK + 7]] * 4, 1, identical, 3, 0.1)
    assert all(run.again().values())
    run.check()


def test_frozen_layers_are_not_sent_again() -> None:
    """The first half of each state is frozen: half is sent."""
    run = run_of([[400 * BLOCK]] * 4, 1, (), 1, 0.0)
    for own in run.now.values():
        own[0][200 * BLOCK :] ^= 0x55
    told = run.again()
    whole = 4 * 3 * run.generation.width(0)  # of each of 4 parities, 3 blocks
    assert run.network.sent <= 0.56 * whole  # blocks are cut into 32 columns at most
    assert all(one is not None and sum(one.unchanged.values()) == 200 * BLOCK for one in told.values())
    run.check()


def test_where_nothing_has_changed_nothing_is_sent() -> None:
    run = run_of([[100 * BLOCK + 5]] * 3, 1, (), 1, 0.0)
    operations = run.network.operations
    assert all(run.again().values())
    assert run.network.sent == 0 and run.network.operations == operations
    run.check()


def test_where_all_has_changed_nobody_looks_for_more() -> None:
    run = run_of([[100 * BLOCK]] * 3, 1, (), 1, 1.0)
    assert not any(run.again().values()) and run.network.sent == 0


@pytest.mark.parametrize("damaged", [True, False])
def test_old_bytes_that_are_damaged_are_the_base_of_nothing(damaged: bool) -> None:
    run = run_of([[100 * BLOCK]] * 3, 1, (), 1, 0.3)
    changed = int(np.flatnonzero(run.before["k1"][0] != run.now["k1"][0])[0]) // BLOCK
    old = run.before["k1"][0].copy()
    old[BLOCK * changed] ^= damaged
    run.old["k1"].data = [old]
    assert all((one is None) is damaged for one in run.again().values())


def test_a_keeper_with_nothing_takes_part() -> None:
    """Of a host whose trainer has taken no snapshot yet."""
    run = run_of([[100 * BLOCK], [], [100 * BLOCK]], 1, (), 1, 0.1)
    assert all(run.again().values())
    run.check()


@pytest.mark.parametrize("when", ["before", "now"])
def test_snapshots_without_checksums_are_coded_anew(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    run = run_of([[100 * BLOCK]] * 3, 1, (), 1, 0.1)
    unknown = getattr(run, when)["k1"][0]
    known = checksums
    monkeypatch.setattr(
        "tests.unit.snapshot.test_unchanged.checksums",
        lambda data: Checksums(len(data), None) if data is unknown else known(data),
    )
    assert not any(run.again().values())


def test_equal_checksums_do_not_make_bytes_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 2**32 blocks that changed has the checksum that it had."""
    run = run_of([[100 * BLOCK]] * 3, 1, (), 1, 0.1)
    zeros = Checksums(100 * BLOCK, np.zeros(100, np.uint32))
    monkeypatch.setattr("tests.unit.snapshot.test_unchanged.checksums", lambda data: zeros)
    monkeypatch.setattr(differences.native, "crc32", lambda data: 0)
    assert all(run.again().values())
    run.check()


def test_other_places_are_coded_anew() -> None:
    one = arranged(1, 1, [Share(f"k{at}", f"d{at}", (Lane("t" + str(at), 5, 100, 1, 0),)) for at in range(3)])
    grown = arranged(
        2, 1, [Share(f"k{at}", f"d{at}", (Lane("t" + str(at), 6, 101, 1, 0),)) for at in range(3)]
    )
    fewer = arranged(
        2, 1, [Share(f"k{at}", f"d{at}", (Lane("t" + str(at), 6, 100, 1, 0),)) for at in range(2)]
    )
    later = arranged(
        2, 1, [Share(f"k{at}", f"d{at}", (Lane("t" + str(at), 9, 100, 2, 7),)) for at in range(3)]
    )
    alike = Generation(2, 1, later.groups, (), (Identical((Range(0, 10),)),))
    assert unchanged.lie_alike(one, later)
    assert not any(unchanged.lie_alike(one, other) for other in (grown, fewer, alike))


@pytest.mark.parametrize(
    ("before", "together"), [((5, 5, 5), True), ((5, 5, 0), False), ((0, 0, 0), False), ((5, 6, 5), False)]
)
def test_all_start_from_the_same_generation_or_anew(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, ...], together: bool
) -> None:
    run = run_of([[10 * BLOCK]] * 3, 1, (), 1, 0.5)
    words: dict[int, bytes] = {}
    said = threading.Barrier(3)

    def from_all(comm: Any, own: bytes, sizes: list[int]) -> list[bytes]:
        words[comm.rank] = own
        said.wait(20)
        return [words[rank] for rank in range(3)]

    monkeypatch.setattr(agreeing, "known_from_all", from_all)

    def play(name: str) -> agreeing.Told | None:
        rank, share = run.ranks[name], run.new[name]
        share.tables = {lane.trainer: bytes(lane.table_bytes) for lane in share.lanes}
        comm: Any = Keeper(run.network, rank)
        one = run.generation
        return agreeing.exchanged(comm, one, share, run.ranks, roomy=rank > 0, before=before[rank])

    for told in run.each(play).values():
        assert (told.all_have_before, told.all_are_roomy) == (together, False)
