"""The oracles of `stress snapshots`: what must come back, what may be gone; strikes within their bounds."""

from __future__ import annotations

import random

import pytest

from stress.report import Report
from stress.snapshot_place import Place
from stress.snapshot_strikes import PHASES_PARITY, drawn, every_phase


def hear(place: Place, *records: dict[str, object]) -> Report:
    report = Report("snapshots", 1, "command", 4)
    for record in records:
        place.hear({"t": 1.0} | record, report)
    return report


COMPLETE = {"what": "complete", "step": 7, "coded": 6, "losses": 1, "fault": "", "unchanged": 0}


def test_what_was_coded_comes_back_or_it_is_a_fault() -> None:
    restored = {"what": "restored", "text": ""}
    assert hear(Place(1), COMPLETE, restored | {"step": 6}).faultless
    assert "step 6 was safe" in hear(Place(1), COMPLETE, restored | {"step": 5}).details[0]
    assert not hear(Place(1), COMPLETE, restored | {"step": 7, "text": "3 elements"}).faultless
    assert not hear(Place(1, exactly=7), COMPLETE, restored | {"step": 6}).faultless, "its keeper had it"
    assert hear(Place(1, may_be_gone=True), COMPLETE, restored | {"step": 5}).faultless
    assert not hear(Place(1, must_be_gone=True), COMPLETE, restored | {"step": 6}).faultless


@pytest.mark.parametrize(
    ("place", "text", "right"),
    [
        (Place(1), "step 6 of trainer 't1' is gone: any 3 keepers of its code", False),
        (Place(1, may_be_gone=True), "step 6 of trainer 't1' is gone: any 3 keepers of its code", True),
        (Place(1, must_be_gone=True), "step 6 of trainer 't2' is gone: any 3 keepers of its code", False),
        (Place(1, must_be_gone=True), "nobody is there", False),
    ],
)
def test_what_is_gone_is_named(place: Place, text: str, right: bool) -> None:
    assert hear(place, COMPLETE, {"what": "gone", "text": text}).faultless == right


def test_a_start_finds_nothing_and_a_failure_is_a_fault() -> None:
    assert hear(Place(1), {"what": "gone", "text": "no keeper has ever had one"}).faultless
    assert hear(Place(1), {"what": "failed", "text": "KeeperLost"}).broken_promises == 1


@pytest.mark.parametrize(("peers", "parity"), [(2, 1), (4, 1), (4, 3), (6, 2), (8, 3)])
def test_strikes_stay_within_the_parity_or_go_one_beyond_for_certain(peers: int, parity: int) -> None:
    beyond = 0
    for number in range(2000):
        strike = drawn(random.Random(number), peers, parity)
        assert strike.blows and {blow.place for blow in strike.blows} <= set(range(peers))
        assert len({blow.place for blow in strike.blows}) == len(strike.blows)
        if len(strike.lost) > parity:
            beyond += 1
            assert strike.certain and len(strike.lost) == parity + 1
    assert parity + 1 >= peers or beyond
    assert all(len(strike.lost) <= PHASES_PARITY for strike in every_phase())
