"""The stress harness itself: wrong results, and peers that disagree, must be seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stress import oracles
from stress.faults import plan_faults
from stress.latency import Joins, Recovery, summary
from stress.ledger import Key, Ledger
from stress.memory import Array, Guarded
from stress.oracles import Kind, Name
from stress.revisions import Revisions
from stress.windows import FLOATS, INTEGERS, Limits, plan_window

NAME = Name(window=7, slot=2, retry=1, tensor=0)
SUM = Kind("float32", "sum", False)
PEERS = (3, 5, 6)
COUNT = 1000


def part(peer: int, name: Name = NAME) -> Array:
    return oracles.contribution(peer, name, SUM, COUNT)


def one_element_off(right: Array) -> Array:
    wrong = right.copy()
    wrong[417] += 1
    return wrong


# What has gone wrong, and what the report must say about it.
WRONG: dict[str, tuple[Callable[[Array], Array], str]] = {
    "missing": (lambda right: right - part(5), "hold peer 3 x 1, peer 6 x 1"),
    "doubled": (lambda right: right + part(6), "hold peer 3 x 1, peer 5 x 1, peer 6 x 2"),
    "of another peer": (lambda right: right - part(5) + part(4), "hold peer 3 x 1, peer 4 x 1, peer 6 x 1"),
    "own input": (lambda right: part(3), "hold peer 3 x 1"),
    "not written": (lambda right: right * 0, "hold nothing"),
    "shifted": (lambda right: np.roll(right, 4), "shifted by -4"),
    "of the last window": (
        lambda right: oracles.expected(PEERS, NAME._replace(window=6), SUM, COUNT),
        "result of 1 windows before",
    ),
    "of the call before": (
        lambda right: oracles.expected(PEERS, NAME._replace(retry=0), SUM, COUNT),
        "the call before this retry",
    ),
    "one stale contribution": (
        lambda right: right - part(3) + part(3, NAME._replace(window=6)),
        "no whole contributions",
    ),
    "one element": (one_element_off, "1 elements are wrong, first at 417"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_sum_is_seen_and_explained(what: str) -> None:
    right = oracles.expected(PEERS, NAME, SUM, COUNT)
    assert oracles.compare(right, PEERS, NAME, SUM) is None
    wrong, said = WRONG[what]
    fault = oracles.compare(wrong(right), PEERS, NAME, SUM)
    assert fault is not None
    assert said in fault


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.parametrize("op", ["sum", "avg", "prod", "min", "max"])
def test_every_contributor_matters(dtype: str, op: oracles.Op) -> None:
    kind = Kind(dtype, op, False)
    right = oracles.expected(PEERS, NAME, kind, COUNT)
    assert right.dtype == dtype
    for wrong in ((3, 5), (3, 5, 5), (3, 5, 7), (3, 5, 6, 7)):
        if (op, wrong) not in {
            ("min", (3, 5, 5)),
            ("max", (3, 5, 5)),
        }:  # a doubled one is the same as none there
            assert oracles.compare(oracles.expected(wrong, NAME, kind, COUNT), PEERS, NAME, kind) is not None


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_are_exact_in_any_order(dtype: str) -> None:
    peers = range(1, oracles.PEERS_MAX + 1)
    kind = Kind(dtype, "sum", False)
    parts = [oracles.contribution(peer, NAME, kind, COUNT) for peer in peers]
    forward, backward = parts[0].copy(), parts[-1].copy()
    for one in parts[1:]:
        forward += one
    for one in parts[-2::-1]:
        backward += one
    assert np.array_equal(forward, backward)
    assert np.array_equal(forward, oracles.expected(list(peers), NAME, kind, COUNT))


@pytest.mark.parametrize("shift", [0, 1, 63])
def test_writes_outside_a_tensor_are_seen(shift: int) -> None:
    guarded = Guarded("float32", 5, shift)
    assert guarded.array.ctypes.data % 64 == shift
    guarded.array[:] = 1
    assert guarded.guards_intact()
    outside = np.lib.stride_tricks.as_strided(guarded.array, (6,), (4,))
    outside[5] = 1
    assert not guarded.guards_intact()


def test_a_seed_replays() -> None:
    assert plan_faults(5, 10, 20, 5) == plan_faults(5, 10, 20, 5) != plan_faults(6, 10, 20, 5)
    assert sum(fault.kind == "kill" for fault in plan_faults(5, 10, 20, 5)) == 20
    limits = Limits()
    assert plan_window(5, 3, limits) == plan_window(5, 3, limits) != plan_window(5, 4, limits)


KEY = Key(window=1, slot=0, scope="run", retry=0, group=0)


def everybody_lives(peer: int) -> bool:
    return False


def test_peers_that_disagree_are_seen() -> None:
    ledger = Ledger()
    assert ledger.commit(KEY, 1, (1, 2), 99, 0.0, everybody_lives) == []
    assert ledger.commit(KEY, 2, (1, 2), 99, 0.0, everybody_lives) == []
    assert "twice" in ledger.commit(KEY, 2, (1, 2), 99, 0.0, everybody_lives)[0]
    assert "contributors" in ledger.commit(KEY, 3, (1, 2, 3), 99, 0.0, everybody_lives)[0]
    assert "committed by" in ledger.fail(KEY, 4, 0.0, everybody_lives)[0]

    other = KEY._replace(slot=1)
    assert ledger.commit(other, 1, (1, 2), 99, 0.0, everybody_lives) == []
    assert "other bits" in ledger.commit(other, 2, (1, 2), 98, 0.0, everybody_lives)[0]


def test_a_result_of_what_failed_elsewhere_is_seen() -> None:
    ledger = Ledger()
    assert ledger.fail(KEY, 1, 0.0, everybody_lives) == []
    assert "but failed at peers [1]" in ledger.commit(KEY, 2, (1, 2), 99, 0.1, everybody_lives)[0]


def test_a_failure_in_a_run_that_begins_again_is_of_another_operation() -> None:
    since = {1: 10.0, 2: 10.0}
    ledger = Ledger(lambda peer: since[peer])
    assert ledger.commit(KEY, 1, (1, 2), 99, 11.0, everybody_lives) == []
    since[1] = since[2] = 20.0
    assert ledger.fail(KEY, 2, 21.0, everybody_lives) == []
    assert "but failed" in ledger.commit(KEY, 1, (1, 2), 99, 21.1, everybody_lives)[0]


def test_a_member_is_told_its_own_revision_or_what_an_evicted_one_had() -> None:
    revisions = Revisions()

    def told(before: int | None, revision: int) -> list[str]:
        return revisions.synced(1, {"before": before, "revision": revision, "key": [1, -1, "group", 0]})

    assert told(None, 9) == told(3, 3) == []
    assert "a member of revision 3, was told revision 9" in told(3, 9)[0]
    revisions.kept(9)
    assert told(3, 9) == [] and told(3, 8) and told(10, 9)


def test_a_result_that_a_contributor_never_got_is_seen() -> None:
    ledger = Ledger()
    ledger.commit(KEY, 1, (1, 2), 99, 0.0, everybody_lives)
    assert ledger.close(1.0, lambda peer: None, lambda peer: False) == []
    ledger.commit(KEY, 1, (1, 2), 99, 0.0, everybody_lives)
    assert "never by [2]" in ledger.close(1.0, lambda peer: None, lambda peer: peer == 2)[0]


def test_half_an_island_is_seen() -> None:
    islands = {1: "a", 2: "a", 3: "b", 4: "b"}
    ledger = Ledger()
    ledger.commit(KEY, 1, (1, 3), 99, 0.0, everybody_lives)
    ledger.commit(KEY._replace(group=1), 2, (2,), 98, 0.0, everybody_lives)
    assert (
        "islands ['a'] in group 1, ['a', 'b'] in group 0"
        in ledger.close(1.0, islands.get, everybody_lives)[0]
    )


def test_latencies() -> None:
    recovery = Recovery()
    recovery.killed(victim=9, at=1.0, survivors=[100, 200, 300])
    recovery.committed(100, [7, 8, 9], at=1.001)  # was under way with the victim
    recovery.disturbed(300)
    recovery.committed(100, [7, 8], at=1.010)
    recovery.committed(200, [7, 8], at=1.020)
    assert recovery.outstanding == 0
    assert [round(sample) for sample in recovery.samples_ms] == [10, 20]

    joins = Joins()
    joins.boundary(100, entered=2.000, changed=True)
    joins.boundary(200, entered=2.003, changed=True)
    joins.member(at=2.005, connect_s=0.050)
    joins.settle(before=3.0)
    assert [round(sample) for sample in joins.boundary_ms] == [2]
    assert summary([float(n) for n in range(1, 101)]) == {
        "median": 50.5,
        "p99": 99.0,
        "max": 100.0,
        "count": 100,
    }


def test_windows_draw_every_algorithm_alike_on_all_peers() -> None:
    drawn = [operation for n in range(50) for operation in plan_window(3, n, Limits()).operations]
    algorithms = {"auto", "ring", "direct", "exchange", "two-level"}
    assert {operation.algorithm for operation in drawn} == algorithms
    assert drawn == [operation for n in range(50) for operation in plan_window(3, n, Limits()).operations]


def test_a_run_that_begins_again_counts_its_peers_anew() -> None:
    """Peers 1 and 2 were killed, the run was over, and the peers 1 and 2 of the next one are others."""
    since = {1: 10.0, 2: 10.0}
    ledger = Ledger(lambda peer: since[peer])
    assert ledger.commit(KEY, 1, (1, 2), 99, 11.0, everybody_lives) == []
    assert ledger.commit(KEY, 2, (1, 2), 99, 11.1, everybody_lives) == []
    since[1] = 20.0
    assert "twice" in ledger.commit(KEY, 1, (1, 2), 98, 21.0, everybody_lives)[0]  # peer 2 is still there
    since[2] = 20.0
    ledger = Ledger(lambda peer: since[peer])
    since[1] = since[2] = 10.0
    assert ledger.commit(KEY, 1, (1, 2), 99, 11.0, everybody_lives) == []
    since[1] = since[2] = 20.0
    assert ledger.commit(KEY, 1, (1, 2), 98, 21.0, everybody_lives) == []
    assert ledger.commit(KEY, 2, (1, 2), 98, 21.1, everybody_lives) == []
    assert "twice" in ledger.commit(KEY, 2, (1, 2), 98, 21.2, everybody_lives)[0]


def test_a_result_that_a_peer_of_the_run_before_lacks_is_no_fault() -> None:
    since = {1: 10.0, 2: 10.0}
    ledger = Ledger(lambda peer: since[peer])
    ledger.commit(KEY, 1, (1, 2), 99, 11.0, everybody_lives)
    since[2] = 20.0
    assert ledger.close(30.0, lambda peer: None, lambda peer: peer == 2) == []
    ledger.commit(KEY, 1, (1, 2), 99, 31.0, everybody_lives)
    assert "never by [2]" in ledger.close(40.0, lambda peer: None, lambda peer: peer == 2)[0]
