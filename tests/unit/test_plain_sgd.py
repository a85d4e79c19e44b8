"""SGD in blocks has torch's bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pccl_py.optim.plain_sgd import BLOCK, is_plain, step_in_blocks

SETTINGS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
    {"momentum": 0.9, "nesterov": True, "maximize": True, "weight_decay": 0.1},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_blocks_have_torch_s_bits(settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(3)
    shapes = [(3 * BLOCK + 17,), (5, 7), (BLOCK,), (0,), ()]
    begin = [torch.randn(shape, generator=generator) for shape in shapes]
    ends = []
    for blocks in (False, True):
        generator.manual_seed(4)
        parameters = [torch.nn.Parameter(value.clone()) for value in begin]
        optimizer = torch.optim.SGD(parameters, lr=0.7, **settings)
        for step in range(4):
            for p in parameters:
                p.grad = torch.randn(p.shape, generator=generator)
            if blocks and step:
                assert is_plain(optimizer, parameters)
                step_in_blocks(optimizer, {id(p) for p in parameters})
            else:
                optimizer.step()
        ends.append([p.detach() for p in parameters])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_what_is_not_plain() -> None:
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    assert is_plain(torch.optim.SGD([p], lr=1.0), [p])
    assert not is_plain(torch.optim.SGD([p], lr=1.0, momentum=0.5), [p]), "it has no buffer yet"
    assert not is_plain(torch.optim.SGD([p], lr=torch.tensor(1.0)), [p])
    assert not is_plain(torch.optim.SGD([p], lr=1.0, foreach=True), [p])
    assert not is_plain(torch.optim.Adam([p]), [p])

    class Own(torch.optim.SGD):
        pass

    assert not is_plain(Own([p], lr=1.0), [p])
