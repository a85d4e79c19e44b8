"""What keepers say to each other in a round: exact inverses, and any other bytes are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py.errors import ProtocolError
from pccl_py.snapshot import generation, limits, standing

from .test_snapshot_messages import count, crc, junk, name, taken

calm = settings(deadline=None)  # of a busy machine
TABLE = st.integers(0, limits.TABLE_BYTES_MAX)
NUMBER = st.integers(0, 1 << 53)
WORDS = st.lists(name, max_size=3).map(lambda found: tuple(map(standing.Word, found)))
HELD = st.builds(
    standing.Held, trainer=name, step=taken, bytes=count, table_bytes=TABLE, crc32=crc,
    attached=st.booleans(), age_ms=NUMBER,
)  # fmt: skip
STANDINGS = st.builds(
    standing.Standing, keeper=name, domain=name, parity=st.integers(0, 255),
    held=st.lists(HELD, max_size=3).map(tuple), wants=WORDS, hopeless=WORDS, freed=WORDS, known=NUMBER,
    intact=NUMBER, doubts=st.booleans(),
)  # fmt: skip
LANE = st.builds(generation.Lane, trainer=name, step=taken, bytes=count, table_bytes=TABLE, crc32=crc)


@st.composite
def generations(draw: st.DrawFn) -> generation.Generation:
    keepers = draw(st.lists(name, min_size=1, max_size=5, unique=True))
    lanes = draw(st.lists(LANE, max_size=6, unique_by=lambda lane: lane.trainer))
    shares = [
        generation.Share(keeper, keeper, tuple(lanes[at :: len(keepers)]))
        for at, keeper in enumerate(keepers)
    ]
    made = generation.arranged(draw(st.integers(1, 1 << 53)), draw(st.integers(0, 255)), shares)
    shortest = min((share.lanes[0].bytes if share.lanes else 0) for share in shares)
    ends = sorted(draw(st.lists(st.integers(0, shortest), max_size=8, unique=True)))
    ranges = tuple(map(generation.Range, ends[::2], ends[1::2]))
    return replace(made, identical=(generation.Identical(ranges),)) if ranges else made


@calm
@given(STANDINGS)
def test_a_standing_comes_back(one: standing.Standing) -> None:
    data = one.encode()
    assert len(data) <= standing.STANDING_BYTES_MAX and standing.decode(data) == one


@calm
@given(generations())
def test_a_generation_comes_back(one: generation.Generation) -> None:
    assert generation.decode(one.encode()) == one


def standing_or_refused(data: bytes) -> None:
    try:
        found = standing.decode(data)
    except ProtocolError:
        return
    assert standing.decode(found.encode()) == found


def generation_or_refused(data: bytes) -> None:
    """What is taken can be used: nothing that follows from it fails."""
    try:
        found = generation.decode(data)
    except ProtocolError:
        return
    assert generation.decode(found.encode()) == found
    found.losses()
    for trainer, (place, lane) in found.places().items():
        areas = found.coded_areas(place, lane)
        width = sum(min(area.last, lane.bytes) - area.first for area in areas)
        inside = [one for one in found.identical_of(place.lane) if one.first < lane.bytes]
        assert width + sum(one.last - one.first for one in inside) == lane.bytes, trainer


@calm
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    standing_or_refused(data)
    generation_or_refused(data)


@calm
@given(STANDINGS, generations(), st.data(), junk)
def test_a_field_of_another_kind(
    said: standing.Standing, coded: generation.Generation, data: st.DataObject, value: Any
) -> None:
    for one, check in ((said, standing_or_refused), (coded, generation_or_refused)):
        raw = json.loads(one.encode())
        raw[data.draw(st.sampled_from(sorted(raw)))] = value
        check(json.dumps(raw).encode())


@calm
@given(STANDINGS, generations(), st.data())
def test_changed_bytes(said: standing.Standing, coded: generation.Generation, data: st.DataObject) -> None:
    for one, check in ((said, standing_or_refused), (coded, generation_or_refused)):
        raw = bytearray(one.encode())
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        check(bytes(raw))
