"""A small causal transformer loses its second stage: training goes on from the neighbours' mean.

The text repeats a rule: each symbol follows from the two before it. All stages begin as copies of one, which
is how deep models are grown from shallow ones; they differ by what they learn.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pccl_py.recovery import neighbour_average, raise_learning_rate, squared_gradient_norm

SYMBOLS, WIDTH, CONTEXT, STAGES, LOST = 16, 32, 16, 4, 1
RATE = 2e-3


def text(rows: int, seed: int) -> Tensor:
    """int64 [rows, CONTEXT + 1]."""
    rule = torch.randint(SYMBOLS, (SYMBOLS, SYMBOLS), generator=torch.Generator().manual_seed(1))
    symbols = torch.randint(SYMBOLS, (rows, CONTEXT + 1), generator=torch.Generator().manual_seed(seed))
    for at in range(2, CONTEXT + 1):
        symbols[:, at] = rule[symbols[:, at - 1], symbols[:, at - 2]]
    return symbols


def new_stage() -> nn.Module:
    stage = nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
    for parameter in stage.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_normal_(parameter)
    return stage


class Pipeline(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(SYMBOLS, WIDTH)
        self.position = nn.Parameter(torch.randn(CONTEXT, WIDTH) / 4)
        self.stages = nn.ModuleList(new_stage() for _ in range(STAGES))
        for stage in self.stages[1:]:
            stage.load_state_dict(self.stages[0].state_dict())
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, SYMBOLS))
        self.optimizers = [torch.optim.AdamW(part.parameters(), RATE) for part in self.stages]
        ends = [*self.embedding.parameters(), self.position, *self.head.parameters()]
        self.optimizers.append(torch.optim.AdamW(ends, RATE))
        self.weights = [0.0] * STAGES

    def loss(self, symbols: Tensor) -> Tensor:
        """Nats per symbol, of those that follow from two before."""
        x = self.embedding(symbols[:, :-1]) + self.position
        mask = nn.Transformer.generate_square_subsequent_mask(CONTEXT)
        for stage in self.stages:
            x = stage(x, src_mask=mask, is_causal=True)
        return nn.functional.cross_entropy(
            self.head(x)[:, 1:].reshape(-1, SYMBOLS), symbols[:, 2:].reshape(-1)
        )

    def train_on(self, steps: range) -> None:
        for step in steps:
            self.loss(text(32, step)).backward()
            self.weights = [squared_gradient_norm(stage) for stage in self.stages]
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()

    def takes(self, state: dict[str, Tensor]) -> None:
        """A replacement for the lost stage, with a new optimizer."""
        self.stages[LOST].load_state_dict(state)
        self.optimizers[LOST] = torch.optim.AdamW(self.stages[LOST].parameters(), RATE)
        raise_learning_rate(self.optimizers[LOST])

    @torch.no_grad()
    def held_out(self) -> float:
        return float(self.loss(text(256, 1_000_000)))


@pytest.mark.deadline(150)
def test_training_goes_on_far_below_a_fresh_stage() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the same sums everywhere
    try:
        torch.manual_seed(0)
        pipeline = Pipeline()
        untrained = pipeline.held_out()
        pipeline.train_on(range(300))
        trained = pipeline.held_out()
        fresh = copy.deepcopy(pipeline)
        fresh.takes(new_stage().state_dict())
        stages: list[nn.Module | None] = list(pipeline.stages)
        stages[LOST] = None
        pipeline.takes(neighbour_average(stages, LOST, pipeline.weights))
        losses = [(pipeline.held_out(), fresh.held_out())]
        for steps in (range(300, 310), range(310, 330)):
            for one in (pipeline, fresh):
                one.train_on(steps)
            losses.append((pipeline.held_out(), fresh.held_out()))
    finally:
        torch.set_num_threads(threads)
    print(f"untrained {untrained:.3f}, trained {trained:.3f}, averaged and fresh after 0, 10, 30: {losses}")
    assert trained < 0.1 * untrained
    assert all(averaged < 0.6 * fresh_one for averaged, fresh_one in losses[:2])
    assert losses[0][0] < 0.25 * untrained
    assert losses[2][0] < losses[1][0] < losses[0][0] and losses[2][0] < losses[2][1]
    assert losses[2][0] < 2 * trained + 0.05
