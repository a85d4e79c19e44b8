"""Sums over links that reorder, lose, fall silent in one direction and come back: every value is right."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stress.net import Emulator

from .commanded import Commanded, on_all
from .emulated import emulator
from .emulated_peers import group

COUNT = 1 << 18  # float32: 1 MiB
PLANS = ("ring", "direct", "auto")


@contextmanager
def bad_links(**settings: Any) -> Iterator[tuple[Emulator, list[Commanded]]]:
    """Three peers, and the master, with 20 ms and 200 Mbit/s in between."""
    with emulator(4, rtt_ms=20, rate_mbit=200, **settings) as net, group(net, 3) as peers:
        yield net, peers


def start(peers: list[Commanded], plan: str, count: int = COUNT) -> None:
    for peer in peers:
        peer.ask("reduce", count, plan)


def ends_right(peers: list[Commanded], contributors: list[int]) -> None:
    calls = [peer.told(60) for peer in peers]
    assert all(call.get("answer", {}).get("right") for call in calls), calls
    assert all(call["answer"]["contributors"] == contributors for call in calls), calls


@pytest.mark.deadline(200)
def test_packets_overtake_and_get_lost(emulated: None) -> None:
    """Then one peer is killed inside an operation, and the others go on over the same links."""
    with bad_links(jitter_ms=4, reorder=True, loss=0.005) as (_, peers):
        for plan in PLANS:
            for count in (COUNT, 1001, 2):
                start(peers, plan, count)
                ends_right(peers, [1, 2, 3])
        start(peers, "ring", 8 * COUNT)
        time.sleep(0.3)
        peers[1].kill()
        ends_right([peers[0], peers[2]], [1, 3])
        for plan in PLANS:
            start([peers[0], peers[2]], plan)
            ends_right([peers[0], peers[2]], [1, 3])


@pytest.mark.deadline(200)
@pytest.mark.parametrize("plan", PLANS)
def test_one_direction_falls_silent_and_comes_back(emulated: None, plan: str) -> None:
    """For less than a peer may be silent: nobody goes, and what the silence ate is sent again."""
    with bad_links() as (net, peers):
        start(peers, plan, 8 * COUNT)
        for a, b in ((0, 1), (1, 2), (0, 1)):
            time.sleep(0.1)
            net.cut(peers[a].place, peers[b].place, one_way=True)
            time.sleep(0.7)
            net.restore(peers[a].place, peers[b].place, one_way=True)
        ends_right(peers, [1, 2, 3])
        assert all(state["members"] == [1, 2, 3] for state in on_all(peers, "state"))


@pytest.mark.deadline(200)
def test_one_direction_stays_silent(emulated: None) -> None:
    """The link is given up, not its ends: as all can reach the master and all but one pair each other, the
    survivors of the next view, whoever they are, agree on the values."""
    with bad_links() as (net, peers):
        start(peers, "auto")
        ends_right(peers, [1, 2, 3])
        net.cut(peers[0].place, peers[1].place, one_way=True)
        start(peers, "auto", 8 * COUNT)
        calls = [peer.told(90) for peer in peers]
        answers = [call["answer"] for call in calls if "answer" in call]
        errors = [call["error"] for call in calls if "error" in call]
        assert len(answers) >= 2 and set(errors) <= {"Evicted"}, calls
        assert all(answer["right"] for answer in answers), calls
        assert len({tuple(answer["contributors"]) for answer in answers}) == 1, calls
