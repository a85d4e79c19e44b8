"""A link that takes less than the others is named, in the log of who waits and by the master's comparison."""

from __future__ import annotations

import time

import pytest

from .emulated import emulator
from .emulated_peers import group

COUNT = 1 << 19  # float32: 2 MiB


@pytest.mark.deadline(120)
def test_a_slow_way_is_named(emulated: None) -> None:
    with emulator(4, rtt_ms=4, rate_mbit=400) as net, group(net, 3) as peers:
        net.set((peers[0].place, peers[1].place), one_way=True, rate_mbit=3)
        for peer in peers:
            peer.ask("watch", COUNT, "ring", 5.0)
        time.sleep(4.5)
        net.set((peers[0].place, peers[1].place), one_way=True, rate_mbit=400)
        answers = [peer.told(60)["answer"] for peer in peers]
        assert all(answer["right"] for answer in answers)
        assert [link["peer"] for link in answers[0]["slow_links"]] == [2]
        said = [line for line in answers[0]["lines"] if "takes data slowly" in line]
        assert said and "for peer 2" in said[0]
        assert all(answer["hindrances"] == [["slow_way", 1, 2]] for answer in answers), answers
