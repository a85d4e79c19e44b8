"""Lines that tell how a model is laid out, and the errors that are made of them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pccl_py.parallel.island_layout import NAME_BYTES, layout_of, local_shards, shortened  # noqa: E402
from pccl_py.parallel.island_state import IslandState, gradients, readable  # noqa: E402


def test_a_plain_model_is_whole() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    lines = layout_of(net)
    assert "0.weight float32 [2, 3] whole" in lines
    assert "buffer 1.num_batches_tracked int64 [] whole" in lines
    shards = local_shards(net)
    shards["0.bias"].fill_(3)
    assert net[0].bias.tolist() == [3, 3]


def test_long_lines_are_cut_and_still_told_apart() -> None:
    one, other = shortened("x" * 300 + "a"), shortened("x" * 300 + "b")
    assert one != other and len(one) <= NAME_BYTES and one[:100] == other[:100]
    assert shortened("short") == "short"
    assert len(shortened("\u00e4" * 200).encode()) <= NAME_BYTES


def test_errors_are_told_without_what_is_not_for_islands() -> None:
    text = (
        "the run goes on without this peer: sync_shared_state: peers 1 and 3 differ in names: "
        "'layout: w float32 [4] Shard(0) over 2 float32[0]' and "
        "'layout: w float32 [4] Shard(0) over 1 float32[0]'"
        "; the run goes on with the newer one; call rejoin() to come back as a new one"
    )
    wanted = "'w float32 [4] Shard(0) over 2' and 'w float32 [4] Shard(0) over 1'"
    assert readable(text) == (
        f"sync_shared_state: peers 1 and 3 differ in names: {wanted}; the run goes on with the newer one"
    )


def test_the_digest_is_of_parameters_optimizer_and_counters() -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = IslandState(net, torch.optim.AdamW(net.parameters()), {"position": torch.zeros(1)})
    first = state.digest()
    net(torch.randn(4, 3))  # buffers are each island's own between boundaries
    assert state.digest() == first
    state.steps += 1
    second = state.digest()
    net[0].bias.data[0] += 1
    assert len({first, second, state.digest()}) == 3


def test_gradients_are_those_that_a_backward_pass_made_or_zeros() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    net[0](torch.ones(1, 3)).sum().backward()
    found = gradients(net)
    assert [list(g.shape) for g in found] == [[2, 3], [2], [2, 2], [2]]
    assert found[1].tolist() == [1, 1] and found[3].tolist() == [0, 0]
    assert net[1].bias.grad is not None
