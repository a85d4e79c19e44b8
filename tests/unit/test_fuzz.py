"""Decoders in Python under the corpus and a few mutants; `python -m tests.fuzz` goes on for as long as one
likes. Those in C++: tests/cpp/test_fuzz.cpp."""

from __future__ import annotations

import pytest

from pccl_py.errors import ProtocolError
from tests.fuzz.campaign import Campaign, Fault
from tests.fuzz.targets import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_corpus_and_mutants(name: str) -> None:
    campaign = Campaign(name, TARGETS[name])
    campaign.replay()
    campaign.run(250, 0.5)


@pytest.mark.parametrize("guided", [False, True])
def test_a_planted_fault_is_found(guided: bool) -> None:
    def believes_a_length(data: bytes) -> None:
        if not data.startswith(b"pccl"):
            raise ProtocolError("something else")
        bytes(16)[: data[4]][data[4] - 1]

    campaign = Campaign("planted", Target(believes_a_length, (ProtocolError,), [b"pccl\x05....."]))
    campaign.replay()
    with pytest.raises(Fault, match="IndexError"):
        campaign.run(20_000, 10.0, guided=guided)


def test_ways_are_told_apart() -> None:
    campaign = Campaign("greeting", TARGETS["greeting"])
    campaign.run(200, 10.0, guided=True)
    assert 1 < campaign.ways < 1000 and 0 < len(campaign.kept) < 50
