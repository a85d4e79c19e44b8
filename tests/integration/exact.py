"""Contributions whose result is exact in every dtype and in every order, and that result."""

from __future__ import annotations

import torch

from pccl_py.tensors import DTYPE_CODES

INTEGERS = [name for name in DTYPE_CODES if "int" in name]
OPS = ["sum", "avg", "prod", "min", "max"]


def contribution(name: str, peer: int, count: int) -> torch.Tensor:
    """Whole numbers from 1 to 3: the product of 4 of them is below 128."""
    values = (torch.arange(count) * (peer + 1) + peer) % 3 + 1
    return values.to(getattr(torch, name))


def expected(name: str, op: str, count: int, peers: int) -> torch.Tensor:
    stack = torch.stack([contribution(name, peer, count).to(torch.float64) for peer in range(peers)])
    total: torch.Tensor = {
        "sum": lambda: stack.sum(0),
        "avg": lambda: stack.sum(0) / peers,
        "prod": lambda: stack.prod(0),
        "min": lambda: stack.amin(0),
        "max": lambda: stack.amax(0),
    }[op]()
    return (total.trunc() if name in INTEGERS else total).to(getattr(torch, name))


def assert_equal(got: torch.Tensor, wanted: torch.Tensor, name: str, op: str) -> None:
    """To the bit, but for averages, whose divisions may be written as a product."""
    if op != "avg" or name in INTEGERS:
        assert torch.equal(got, wanted), (name, op)
    elif name in ("float16", "bfloat16"):
        assert torch.allclose(got.float(), wanted.float(), rtol=1e-2), (name, op)
    else:
        assert torch.allclose(got, wanted, rtol=1e-6), (name, op)
