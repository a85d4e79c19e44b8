"""Shares under churn: every sample once, batches the same whatever the membership."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py.errors import UsageError
from pccl_py.parallel import ElasticSampler


def train(sampler: ElasticSampler, seated: list[int], dies: set[int], joins: list[int]) -> list[int]:
    """One step of all peers on one ledger: positions used. `dies` gave nothing, `joins` come after it."""
    sampler.seat(seated)
    used = np.zeros(sampler.global_batch, np.int32)
    batch = sampler.ledger.batch()
    for peer in seated:
        if peer not in dies:
            used += sampler.used(peer)
    trained = [p for p, count in zip(batch, used, strict=True) if count]
    sampler.commit(used, [p for p in seated if p not in dies] + joins)
    return trained


@settings(max_examples=200, deadline=None)
@given(
    samples=st.integers(1, 40),
    batch=st.integers(1, 40),
    churn=st.lists(st.tuples(st.sets(st.integers(0, 5)), st.integers(0, 2)), max_size=30),
)
def test_every_sample_of_the_stream_is_used_once(samples, batch, churn):
    batch = min(samples, batch)
    sampler = ElasticSampler(samples, global_batch=batch, seed=3)
    seated, newest, seen = [0, 1, 2], 3, []
    for deaths, coming in churn:
        seated = sampler.ledger.members or seated
        joins = list(range(newest, newest + coming))
        newest += coming
        dead = {seated[d] for d in deaths if d < len(seated)} if len(deaths) < len(seated) else set()
        seen += train(sampler, list(seated), dead, joins)
        assert len(sampler.ledger.returned) <= batch
    assert len(seen) == len(set(seen))
    open_positions = set(sampler.ledger.returned) | set(range(sampler.ledger.position, samples * 50))
    assert set(seen) | open_positions == set(range(samples * 50))
    assert not set(seen) & open_positions


@given(samples=st.integers(1, 60), batch=st.integers(1, 60), world=st.integers(1, 9), seed=st.integers(0, 99))
@settings(deadline=None)
def test_shares_cover_the_batch_and_the_batch_ignores_membership(samples, batch, world, seed):
    batch = min(samples, batch)
    alone, many = (ElasticSampler(samples, global_batch=batch, seed=seed) for _ in range(2))
    alone.seat([7])
    many.seat(list(range(10, 10 + world)))
    together = [i for peer in range(10, 10 + world) for i in many.share(peer)]
    assert together == alone.share(7)
    sizes = [len(many.share(peer)) for peer in many.ledger.members]
    assert max(sizes) - min(sizes) <= 1


def test_an_epoch_is_a_permutation_and_the_next_another_one():
    sampler = ElasticSampler(12, global_batch=4, seed=5)
    epochs = []
    for _ in range(2):
        seen = []
        for _ in range(3):
            sampler.seat([1])
            seen += sampler.share(1)
            sampler.commit(sampler.used(1), [1])
        epochs.append(seen)
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]
    assert sampler.epoch == 2 and sampler.step == 6


def test_what_a_dead_peer_had_is_the_first_of_the_next_batch():
    sampler = ElasticSampler(100, global_batch=8, shuffle=False)
    sampler.seat([1, 2])
    assert sampler.share(2) == [4, 5, 6, 7]
    sampler.commit(sampler.used(1), [1])
    assert sampler.share(1) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert sampler.share(2) == []


def test_a_sample_used_twice_is_an_error():
    sampler = ElasticSampler(100, global_batch=8)
    sampler.seat([1])
    with pytest.raises(UsageError, match="used by two peers"):
        sampler.commit(2 * sampler.used(1), [1])


def test_more_peers_than_samples_wait_for_a_place():
    sampler = ElasticSampler(10, global_batch=2)
    sampler.seat([1, 2, 3])
    assert len(sampler.share(1)) == len(sampler.share(2)) == 1
    assert sampler.share(3) == []


def test_a_saved_sampler_goes_on_and_a_different_one_refuses():
    first = ElasticSampler(50, global_batch=5, seed=1)
    first.seat([1, 2])
    first.commit(first.used(1), [1])
    second = ElasticSampler(50, global_batch=5, seed=1)
    second.load_state_dict(first.state_dict())
    assert second.share(1) == first.share(1) and second.step == 1
    with pytest.raises(UsageError, match="seed=1, and this one has 2"):
        ElasticSampler(50, global_batch=5, seed=2).load_state_dict(first.state_dict())


def test_seeds_of_samples_depend_on_the_sample_alone():
    first, second = (ElasticSampler(50, global_batch=5, seed=9) for _ in range(2))
    assert [first.seed_of(p) for p in range(20)] == [second.seed_of(p) for p in range(20)]
    assert len({first.seed_of(p) for p in range(1000)}) == 1000


@pytest.mark.parametrize(
    "wrong", [{"global_batch": 0}, {"global_batch": 11}, {"global_batch": 2, "seed": -1}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(UsageError):
        ElasticSampler(10, **wrong)
