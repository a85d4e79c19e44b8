"""The state that is saved, shaped like a GPT with AdamW, and the training that runs beside."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 1536
VOCABULARY = 16384
_PER_BLOCK = 12 * WIDTH * WIDTH + 13 * WIDTH


class Gpt(nn.Module):
    """Parameters only; its forward is not called."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(WIDTH),
                    "qkv": nn.Linear(WIDTH, 3 * WIDTH),
                    "proj": nn.Linear(WIDTH, WIDTH),
                    "norm2": nn.LayerNorm(WIDTH),
                    "up": nn.Linear(WIDTH, 4 * WIDTH),
                    "down": nn.Linear(4 * WIDTH, WIDTH),
                }
            )
            for _ in range(blocks)
        )


def state_of(total_bytes: int) -> tuple[Gpt, torch.optim.AdamW]:
    """A module and its optimizer with states, float32, about so many bytes together."""
    parameters = total_bytes // 12
    blocks = max((parameters - VOCABULARY * WIDTH) // _PER_BLOCK, 1)
    model = Gpt(blocks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02, generator=generator)
            optimizer.state[parameter] = {
                "step": torch.tensor(10.0),
                "exp_avg": torch.empty_like(parameter).normal_(0, 1e-3, generator=generator),
                "exp_avg_sq": torch.empty_like(parameter).uniform_(0, 1e-5, generator=generator),
            }
    return model, optimizer


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flat and by name, as savers of plain tensors take them."""
    found = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    return found


class Training:
    """An MLP of its own with AdamW, `threads` cores; about 20 ms a step on one."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._model = nn.Sequential(nn.Linear(1024, 1024), nn.GELU(), nn.Linear(1024, 1024))
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-3)
        self._batch = torch.randn(192, 1024)

    def step(self) -> float:
        """Seconds that it took."""
        begun = time.perf_counter()
        loss: Any = (self._model(self._batch) - self._batch).square().mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return time.perf_counter() - begun
