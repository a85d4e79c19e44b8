"""What all snapshots have alike is found by block, left out of the code, and comes back from whoever is
left."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from pccl_py.checkpoint.boxes import Box
from pccl_py.checkpoint.manifest import Piece, Shard, Tensor
from pccl_py.checkpoint.rank_record import RankRecord
from pccl_py.errors import ProtocolError
from pccl_py.snapshot import generation as gen
from pccl_py.snapshot import identical, limits, table
from pccl_py.snapshot.generation import Generation, Identical, Lane, Range, arranged
from pccl_py.snapshot.generation import Share as Given
from pccl_py.snapshot.identical import Checksums
from pccl_py.snapshot.share import Share

from .test_generation import summed

BLOCK = identical.BLOCK_BYTES


def sums(count: int, *crcs: int) -> Checksums:
    return Checksums(count, np.array(crcs, np.uint32) if crcs else None)


def found(*of_all: Checksums) -> list[int]:
    return identical.candidates(of_all).tolist()


def test_blocks_that_may_be_identical() -> None:
    assert found(sums(3 * BLOCK, 1, 2, 3), sums(3 * BLOCK, 1, 9, 3)) == [0, 2]
    assert found(sums(2 * BLOCK + 5, 1, 2, 3), sums(2 * BLOCK + 5, 1, 2, 3)) == [0, 1, 2]
    assert found(sums(2 * BLOCK + 5, 1, 2, 3), sums(2 * BLOCK + 6, 1, 2, 3)) == [0, 1], "other bytes"
    assert found(sums(2 * BLOCK, 1, 2), sums(3 * BLOCK, 1, 2, 3)) == [0, 1]
    assert found(sums(BLOCK, 1)) == [], "nobody else has it"
    assert found(sums(BLOCK, 1), sums(BLOCK)) == found(sums(BLOCK), sums(BLOCK)) == [], "not known"


def test_equal_checksums_are_not_enough() -> None:
    """Blocks of the same CRC-32 and other bytes: the digest tells."""
    first = np.arange(3 * BLOCK, dtype=np.uint8)
    second = first.copy()
    second[BLOCK] ^= 1
    blocks = np.arange(3)
    told = [identical.digests(data, blocks) for data in (first, second, first)]
    assert identical.ranges(told, blocks, 3 * BLOCK) == (Range(0, BLOCK), Range(2 * BLOCK, 3 * BLOCK))
    assert identical.ranges(told[::2], blocks, 3 * BLOCK - 7) == (Range(0, 3 * BLOCK - 7),)
    with pytest.raises(ProtocolError):
        identical.ranges([told[0], told[1][1:]], blocks, 3 * BLOCK)


def test_of_many_ranges_the_longest_are_left_out() -> None:
    numbers = np.array([*range(0, 400, 2), 399])
    words = bytes(identical.DIGEST_BYTES * len(numbers))
    made = identical.ranges([words, words], numbers, 400 * BLOCK)
    assert len(made) == limits.RANGES_MAX and made == tuple(sorted(made, key=lambda one: one.first))
    assert made[-1] == Range(398 * BLOCK, 400 * BLOCK)


def test_words_of_anybody() -> None:
    lanes = (Lane("a", 1, BLOCK + 1, 1, 0), Lane("b", 1, 5, 1, 0))
    right = b"\1abcdefgh" + bytes(5)
    first, second = identical.checksums(lanes, right)
    assert first.crcs is not None and first.crcs.tobytes() == b"abcdefgh" and second.crcs is None
    for wrong in (b"", right[:-1], right + b"x"):
        with pytest.raises(ProtocolError):
            identical.checksums(lanes, wrong)
    assert identical.own_words(lanes[0], b"no table") == bytes(9)


def test_a_glance_at_a_table() -> None:
    crcs = bytes(range(8))
    shard = Shard("shard-00000-of-00001.safetensors", BLOCK + 1, 8, crcs)
    record = RankRecord(0, shard, {"w": Tensor("U8", (4,), (Piece(0, 8, Box((0,), (4,)), 5),))})
    words = table.encode(table.Table(2, BLOCK, record, ("a", "b")))
    assert table.decode(words, "it").crcs == table.checksums(words, BLOCK) == crcs
    assert identical.own_words(Lane("a", 1, BLOCK + 1, 1, 0), words) == b"\1" + crcs
    assert identical.own_words(Lane("a", 1, BLOCK, 1, 0), words) == bytes(5), "of another size"
    assert table.checksums(words, 2 * BLOCK) is None
    assert table.checksums(words.replace(b'"shard"', b'"other"'), BLOCK) is None
    assert table.checksums(table.encode(table.Table(1, BLOCK, RankRecord(0))), BLOCK) is None
    for end in range(len(words) - 1):
        cut = table.checksums(words[:end], BLOCK)
        assert cut is None or cut == crcs


def made_of(sizes: list[int], parity: int, *parts: tuple[int, int]) -> Generation:
    shares = [Given(f"k{at}", f"d{at}", (Lane(f"t{at}", 5, size, 1, 0),)) for at, size in enumerate(sizes)]
    ranges = Identical(tuple(Range(first, last) for first, last in parts))
    return replace(arranged(1, parity, shares), identical=(ranges,))


@pytest.mark.parametrize(("count", "parity"), [(2, 1), (4, 1), (5, 2), (6, 3), (11, 2)])
def test_what_is_coded_beside_what_is_identical_comes_back(count: int, parity: int) -> None:
    """In the order in which it is written: padding of one area goes where another one comes after it."""
    dice = np.random.default_rng(count)
    sizes = [90_000 + 1_001 * at for at in range(count)]
    made = made_of(sizes, parity, (4096, 12_288), (13_000, 20_480), (40_960, 81_920))
    assert gen.decode(made.encode()) == made
    common = dice.integers(0, 256, max(sizes), np.uint8)
    data = {at: dice.integers(0, 256, size, np.uint8) for at, size in enumerate(sizes)}
    for one in made.identical_of(0):
        for own in data.values():
            own[one.first : one.last] = common[one.first : one.last]
    ranks = {f"k{at}": at for at in range(count)}
    held = {at: share_of(made, at, data[at]) for at in range(count)}
    assert all(share.parities[0].shape == (parity, made.width(0)) for share in held.values())
    encode(made, held, ranks)
    assert made.losses() == parity
    for lost in combinations(range(count), parity):
        present = {name: rank for name, rank in ranks.items() if rank not in lost}
        for one in lost:
            place, lane = made.places()[f"t{one}"]
            assert made.can_rescue(place, lane, present)
            whole = np.zeros(2 * max(sizes), np.uint8)
            for area in made.coded_areas(place, lane):
                blocks = blocks_at(made, held, area, place.group)
                at = area.first
                for total in made.rescue(place, present, 0) or []:
                    whole[at : at + area.width] = summed(total, blocks, area.width)
                    at += area.width
            for part in made.identical_of(0):
                source = held[made.holders(place, present)[-1]]
                whole[part.first : part.last] = source.data[0][part.first : part.last]
            assert np.array_equal(whole[: lane.bytes], data[one])


def share_of(made: Generation, at: int, data: np.ndarray) -> Share:
    found = made.share_of(f"k{at}")
    assert found is not None
    m = made.code(found[0])[1]
    return Share(made, found[2].lanes, [data], [np.zeros((m, made.width(0)), np.uint8)])


def blocks_at(
    made: Generation, held: dict[int, Share], area: gen.Area, group: int
) -> dict[int, list[np.ndarray]]:
    members = {share.keeper for share in made.groups[group].shares}
    k = made.code(group)[0]
    return {at: share.blocks(0, k, area) for at, share in held.items() if f"k{at}" in members}


def encode(made: Generation, held: dict[int, Share], ranks: dict[str, int]) -> None:
    sums = made.parities(0, ranks)
    for area in made.areas(0):
        for at, share in held.items():
            found = made.share_of(f"k{at}")
            assert found is not None
            group, slot, _ = found
            blocks = blocks_at(made, held, area, group)
            own = [one for one in sums if one.owner == at]
            for row, total in zip(made.parity_rows(group, slot), own, strict=True):
                share.rows(0, area)[row][:] = summed(total, blocks, area.width)


def test_what_all_have_is_not_coded_and_survives_all_but_one() -> None:
    made = made_of([9000] * 5, 1, (0, 9000))
    place, lane = made.places()["t3"]
    assert made.areas(0) == [] and made.width(0) == 0 and made.identical_bytes(0) == 9000
    assert made.losses() == 4 and made.losses({"k0", "k1"}) == 2
    assert made.can_rescue(place, lane, {"k1": 0}) and made.holders(place, {"k1": 0, "k3": 1}) == [0]
    assert not made.can_rescue(place, lane, {"k3": 0}) and not made.can_rescue(place, lane, {})
    part = made_of([9000] * 5, 1, (0, 8192))
    assert part.losses() == 1 and part.width(0) == 256  # 808 bytes in four blocks
    assert not part.can_rescue(place, lane, {"k1": 0})
    shares = [Given(f"k{at}", f"d{at % 2}", (Lane(f"t{at}", 5, 9000, 1, 0),)) for at in range(4)]
    racks = replace(made, groups=arranged(1, 1, shares).groups)
    assert racks.losses() == 1, "keepers of one rack are lost together"


def test_hostile_ranges() -> None:
    for parts in ([(0, 9001)], [(0, 0)], [(5, 4)], [(0, 10), (5, 20)], [(10, 20), (0, 5)]):
        with pytest.raises(ProtocolError):
            gen.decode(made_of([9000, 9500], 1, *parts).encode())
    with_less = arranged(1, 1, [Given("k0", "a", (Lane("t", 5, 9000, 1, 0),)), Given("k1", "b", ())])
    with pytest.raises(ProtocolError):
        gen.decode(replace(with_less, identical=(Identical((Range(0, 10),)),)).encode())
    with pytest.raises(ProtocolError):
        gen.decode(replace(arranged(1, 1, []), identical=(Identical((Range(0, 10),)),)).encode())
    nothing = replace(with_less, identical=(Identical(()),))
    assert gen.decode(nothing.encode()) == nothing
