"""The loader gives this peer's part of each batch, also of batches that were fetched ahead and are void."""

from __future__ import annotations

import pytest
import torch

from pccl_py.parallel import ElasticLoader, ElasticSampler


class Squares(torch.utils.data.Dataset):
    def __getitem__(self, key):
        index, seed = key if isinstance(key, tuple) else (key, 0)
        return torch.tensor([index, index * index, seed % 1000])

    def __len__(self):
        return 100


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_fetched_ahead_is_dropped_when_the_shares_change(workers):
    sampler = ElasticSampler(100, global_batch=8, seed=2)
    loader = iter(ElasticLoader(Squares(), sampler, lambda: 1, num_workers=workers))
    sampler.seat([1, 2])
    for step in range(12):
        wanted = sampler.share(1)
        batch = next(loader)
        assert batch[:, 0].tolist() == wanted
        assert batch[:, 1].tolist() == [i * i for i in wanted]
        used = sampler.used(1)
        if step == 4:  # peer 2 dies: what it had comes back, and all is peer 1's
            sampler.commit(used, [1])
        elif step == 8:  # peer 3 comes
            sampler.commit(used, [1, 3])
        else:
            others = sum((sampler.used(p) for p in sampler.ledger.members if p != 1), 0 * used)
            sampler.commit(used + others, sampler.ledger.members)


def test_a_peer_without_a_seat_gets_a_sample_of_weight_nothing():
    sampler = ElasticSampler(100, global_batch=4)
    loader = ElasticLoader(Squares(), sampler, lambda: 9, num_workers=0)
    sampler.seat([1])
    assert len(next(iter(loader))) == 1
    assert loader.weight == 0


def test_a_keyed_sample_has_the_same_seed_on_every_peer():
    seeds = []
    for peer, seated in ((1, [1, 2]), (5, [5])):
        sampler = ElasticSampler(100, global_batch=4, seed=2)
        loader = ElasticLoader(Squares(), sampler, lambda peer=peer: peer, keyed=True)
        sampler.seat(seated)
        seeds.append(next(iter(loader))[0].tolist())
    assert seeds[0] == seeds[1] and seeds[0][2] != 0
