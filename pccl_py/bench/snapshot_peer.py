"""The processes of `bench snapshot`: a trainer that takes snapshots until it is killed, and its successor.

usage: trainer RUN BYTES REPEATS | successor RUN BYTES     both answer in lines of JSON
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import torch
from torch import nn

from ..snapshot.keeper_client import Keeper
from ..snapshot.snapshots import Snapshots
from ..snapshot.verified import Verified
from ..state.train_state import TrainState

SIDE = 1024
_TENSOR = SIDE * SIDE * 4
PAUSE_S = 0.3  # between a snapshot and the step that it must not hold up, for each GiB


def state_of(total: int, seed: int) -> tuple[nn.ParameterList, torch.optim.AdamW]:
    """Parameters of 4 MiB with AdamW's moments, about so many bytes together."""
    count = max(total // (3 * _TENSOR), 1)
    generator = torch.Generator().manual_seed(seed)
    held = nn.ParameterList(nn.Parameter(torch.rand(SIDE, SIDE, generator=generator)) for _ in range(count))
    optimizer = torch.optim.AdamW(held.parameters())
    for parameter in held:
        optimizer.state[parameter] = {
            "step": torch.tensor(1.0),
            "exp_avg": torch.rand(SIDE, SIDE, generator=generator),
            "exp_avg_sq": torch.rand(SIDE, SIDE, generator=generator),
        }
    return held, optimizer


def digest(held: nn.ParameterList, optimizer: torch.optim.AdamW) -> int:
    """Of every bit of the state."""
    total = 0
    for parameter in held:
        for tensor in (parameter.detach(), *optimizer.state[parameter].values()):
            words = tensor.reshape(-1).view(torch.int32).to(torch.int64)
            total = (total * 1_000_003 + int((words * torch.arange(1, words.numel() + 1)).sum())) % (1 << 61)
    return total


def train(held: nn.ParameterList, optimizer: torch.optim.AdamW) -> None:
    optimizer.step()  # without gradients: the fence, and nothing else
    with torch.no_grad():
        for parameter in held:
            parameter.add_(0.25)
            optimizer.state[parameter]["exp_avg"].mul_(0.5)


def takes(
    run: str, total: int, repeats: int, *, lazy: bool, first: int
) -> tuple[dict[str, float], Snapshots]:
    held, optimizer = state_of(total, 1)
    state = TrainState(model=held, inner=optimizer, rng=False)
    snapshots = Snapshots(run=run, lazy=lazy)
    begun = time.perf_counter()
    snapshots.prepare(state)
    prepared = time.perf_counter() - begun
    blocked, fenced, complete = [], [], []
    for step in range(first, first + repeats + 1):
        snapshots.take(step, state)
        time.sleep(PAUSE_S * total / (1 << 30))
        last = digest(held, optimizer) if step == first + repeats else 0
        train(held, optimizer)
        info = snapshots.wait()
        assert info is not None
        blocked.append(info.blocked_s)
        fenced.append(info.fenced_s)
        complete.append(info.complete_s)
    return {
        "bytes": snapshots.status().bytes,
        "prepare_s": prepared,
        "first_s": blocked[0],
        "blocked_s": statistics.median(blocked[1:]),
        "blocked_max_s": max(blocked[1:]),
        "fenced_s": statistics.median(fenced[1:]),
        "complete_s": statistics.median(complete[1:]),
        "digest": last,
    }, snapshots


def trainer(run: str, total: int, repeats: int) -> None:
    now, snapshots = takes(run, total, repeats, lazy=False, first=1)
    snapshots.close()
    lazy, snapshots = takes(run, total, repeats, lazy=True, first=1000)
    print(json.dumps({"now": now, "lazy": lazy, "step": snapshots.latest()}), flush=True)
    sys.stdin.read()


def successor(run: str, total: int) -> None:
    held, optimizer = state_of(total, 2)
    state = TrainState(model=held, inner=optimizer, rng=False)
    print("{}", flush=True)
    sys.stdin.readline()
    keeper = Keeper.attach(run, "0", start=False)
    with Verified(keeper.kept[0]):
        verified = time.monotonic()
    keeper.close()
    snapshots = Snapshots(run=run)
    begun = time.perf_counter()
    info = snapshots.restore(state)
    restored = time.perf_counter() - begun
    found = {"verified": verified, "restore_s": restored, "step": info.step}
    snapshots.close(free=True)  # first: who reads the line ends this process
    print(json.dumps(found | {"digest": digest(held, optimizer)}), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "trainer":
        trainer(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        successor(sys.argv[2], int(sys.argv[3]))
