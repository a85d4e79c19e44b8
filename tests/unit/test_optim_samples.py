"""An ElasticSampler in an optimizer of the family: shares, what comes back, saved states, refusals."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch

import pccl_py as pccl
from pccl_py.optim import AsyncDiLoCo, DiLoCo, StreamingDiLoCo
from pccl_py.parallel import ElasticSampler
from tests.fakes import FakeComm, FakeWorld
from tests.threads import in_threads
from tests.toy import H, alone, flat, inner_step, net, sgd

DATA = torch.randn(60, 3, generator=torch.Generator().manual_seed(5))
KINDS: dict[str, Any] = {
    "diloco": partial(DiLoCo, sync_every=H),
    "streaming": partial(StreamingDiLoCo, sync_every=2 * H, num_fragments=2, fragment_sync_delay=1),
    "async": partial(AsyncDiLoCo, sync_every=H, staleness="gap"),
}


def sampler_for(kind: str, batch: int = 12) -> ElasticSampler:
    return ElasticSampler(len(DATA), global_batch=batch, seed=2, overlapping=kind != "diloco")


class Peer:
    def __init__(self, comm: Any, kind: str, batch: int = 12, **options: Any) -> None:
        self.model, self.sampler = net(), sampler_for(kind, batch)
        self.inner = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.outer = KINDS[kind](comm, self.model, self.inner, sampler=self.sampler, **options)
        self.seen: list[list[int]] = []

    def train(self, steps: int) -> None:
        with self.outer:
            for _ in range(steps):
                self.seen.append(self.outer.share())
                inner_step(self.model, self.inner, DATA[self.seen[-1]])


@pytest.mark.parametrize("kind", KINDS)
def test_two_peers_share_an_epoch(kind: str) -> None:
    """Six windows of 10 samples: all of them, once."""
    peers = [Peer(comm, kind, 10) for comm in FakeWorld(2).comms]
    in_threads([partial(peer.train, 6 * H) for peer in peers])
    first, second = ([i for step in peer.seen for i in step] for peer in peers)
    assert [len(step) for step in peers[0].seen[:H]] == [1, 1, 1, 2]  # 5 of 10 samples in 4 steps
    assert sorted(first + second) == list(range(60))
    assert peers[0].outer.state_digest() == peers[1].outer.state_digest()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 2, H, H + 1, 2 * H, 3 * H + 3])
def test_save_and_load_anywhere_goes_on_with_the_same_samples(kind: str, at: int) -> None:
    whole = Peer(alone(), kind)
    whole.train(at)
    saved = whole.outer.state_dict()
    model, inner = deepcopy(whole.model.state_dict()), deepcopy(whole.inner.state_dict())
    whole.train(3 * H)
    again = Peer(alone(), kind)
    again.model.load_state_dict(model)
    again.inner.load_state_dict(inner)
    again.outer.load_state_dict(saved)
    again.train(3 * H)
    assert again.seen == whole.seen[at:]
    assert torch.equal(flat(again.model), flat(whole.model))
    assert again.outer.state_digest() == whole.outer.state_digest()


def test_what_was_not_used_comes_first() -> None:
    """One peer drops its window, ends it short, or holds NaN: the others' commit says so."""
    peers = [Peer(comm, "diloco", non_finite="skip") for comm in FakeWorld(2).comms]

    def play(peer: Peer, short: int, nan: bool) -> list[list[int]]:
        shares = []
        peer.outer.sync()
        for steps in (H, short, H):
            shares.append([])
            for _ in range(steps):
                share = peer.outer.share()
                shares[-1] += share
                inner_step(peer.model, peer.inner, DATA[share])
            if nan and len(shares) == 3:
                next(iter(peer.model.parameters())).data.fill_(float("nan"))
            peer.outer.sync()
        shares.append(peer.sampler.share(0) + peer.sampler.share(1))
        return shares

    mine, theirs = in_threads([partial(play, peers[0], H, False), partial(play, peers[1], 0, True)])
    assert not set(mine[0]) & set(theirs[0]) and len(mine[0] + theirs[0]) == 12
    order = [sampler_for("diloco").index_of(p) for p in range(60)]
    assert mine[1] == order[12:18] and theirs[1] == []  # 18 to 24 came back
    assert mine[2] + theirs[2] == order[18:30]
    assert mine[3] == theirs[3] == order[24:36]


@pytest.mark.parametrize("kind", KINDS)
def test_a_spare_has_a_share_once_it_trains(kind: str) -> None:
    """What it had at the start comes back; each sample is trained on once all the same."""
    peers = [Peer(comm, kind, 10) for comm in FakeWorld(2).comms]

    def play(peer: Peer, spare: bool) -> None:
        with peer.outer:
            if spare:
                assert peer.outer.stand_by(2)
            while peer.outer.windows < 8:
                peer.seen.append(peer.outer.share())
                peer.inner.zero_grad()
                if peer.seen[-1]:
                    inner_step(peer.model, peer.inner, DATA[peer.seen[-1]])
                else:
                    peer.inner.step()
            peer.outer.drain()

    in_threads([partial(play, peer, spare) for peer, spare in zip(peers, (False, True), strict=True)])
    first, second = ([i for step in peer.seen for i in step] for peer in peers)
    assert len(second) > 10
    assert peers[0].outer.state_digest() == peers[1].outer.state_digest()
    sampler, count = peers[0].sampler, len(peers[0].sampler.ledgers)
    done = [
        p * count + turn
        for turn, ledger in enumerate(sampler.ledgers)
        for p in set(range(ledger.position)) - set(ledger.returned)
    ]
    trained = Counter(first + second)
    trained.subtract(sampler.index_of(p) for p in done)
    open_steps = [step for p in peers for step in p.seen[len(p.seen) - p.outer.pending_steps :]]
    assert min(trained.values()) >= 0 and sum(trained.values()) == sum(map(len, open_steps))


@pytest.mark.parametrize(
    ("kind", "options", "sampler", "text"),
    [
        ("diloco", {}, [1, 2], "sampler is a list"),
        ("diloco", {"local_steps": "dynamic"}, sampler_for("diloco"), "equal windows"),
        ("diloco", {"min_peers": 1}, sampler_for("diloco"), "equal windows"),
        ("diloco", {}, sampler_for("diloco", 3), "global_batch=3 of the sampler"),
        ("diloco", {}, sampler_for("async"), "without ElasticSampler"),
        ("async", {}, sampler_for("diloco"), "make it with ElasticSampler"),
    ],
)
def test_wrong_samplers(kind: str, options: dict[str, Any], sampler: Any, text: str) -> None:
    model = net()
    with pytest.raises(pccl.UsageError, match=text):
        KINDS[kind](alone(), model, sgd(model), sampler=sampler, **options)


def test_share_where_there_is_none() -> None:
    model = net()
    inner = sgd(model)
    with pytest.raises(pccl.UsageError, match="without a sampler"):
        DiLoCo(alone(), model, inner, sync_every=H).share()
    with pytest.raises(pccl.UsageError, match="before the first sync"):
        Peer(alone(), "diloco").outer.share()


def test_a_state_without_the_sampler_is_refused() -> None:
    saved = Peer(alone(), "diloco").outer.state_dict()
    del saved["samples"]
    with pytest.raises(pccl.UsageError, match="'samples' is missing"):
        Peer(alone(), "diloco").outer.load_state_dict(saved)


def test_more_peers_than_samples() -> None:
    """Who has no share steps without gradients, and does not dilute the mean."""
    comms: list[FakeComm] = FakeWorld(2).comms
    peers = [Peer(comm, "diloco") for comm in comms]

    def play(peer: Peer, seated: bool) -> float:
        peer.outer.sync()
        peer.sampler.seat([0])
        for _ in range(H):
            share = peer.outer.share()
            assert bool(share) == seated
            peer.inner.zero_grad()
            if share:
                inner_step(peer.model, peer.inner, DATA[share])
            else:
                peer.inner.step()
        window = peer.outer.sync()
        assert window is not None
        return window.weight

    assert in_threads([partial(play, peers[0], True), partial(play, peers[1], False)]) == [1.0, 1.0]
    assert peers[0].sampler.ledger.returned == []
