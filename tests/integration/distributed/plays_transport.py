"""States between two replicas and a third one, over their group: what the ranks of test_transport.py do."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import torch

import pccl_py.distributed as our_dist
from pccl_py import PcclError
from pccl_py.distributed import checkpoint_transport

from .gang import say
from .plays_churn import die
from .plays_reconfigure import Rank

LIMIT = timedelta(seconds=20)


def state(seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    return {
        "model": {
            "large": draw(1500, 1001), "half": draw(33).bfloat16(), "turned": draw(7, 5).t(),
            "mask": draw(9) > 0.5, "empty": draw(0, 3), "number": draw(1).reshape(()),
        },
        "inner": {"state": {0: {"step": torch.tensor(float(seed)), "moment": draw(4, 4)}},
                  "groups": [(1, "a")]},
        "step": seed,
    }  # fmt: skip


def tensors(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return [tensor for value in values for tensor in tensors(value)]


def alike(a: Any, b: Any) -> bool:
    ours, theirs = tensors(a), tensors(b)
    pairs = zip(ours, theirs, strict=True)
    return len(ours) == 8 and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)


def same(a: Any, b: Any) -> bool:
    """The plain values, too."""
    return alike(a, b) and a["inner"]["groups"] == b["inner"]["groups"] and a["step"] == b["step"]


def outcome(call: Any) -> str:
    try:
        call()
    except PcclError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def healing(*, rank: int, ranks: int, path: str) -> None:
    """Rank 0 has the state, the others do not; the last one is killed in the end."""
    me = Rank(rank, ranks, path)
    me.reconfigure(1, me.collect("all"))
    mine = state(rank)
    addresses = [tensor.data_ptr() for tensor in tensors(mine)]
    plain = our_dist.CheckpointTransport(me.group)
    placing = our_dist.CheckpointTransport(me.group, state_dict=lambda: mine, timeout=20)

    if rank == 0:
        plain.send_checkpoint([1, 2], 7, mine, LIMIT)
        plain.send_checkpoint([1, 2], 8, mine, LIMIT)
        plain.disallow_checkpoint()
    else:
        new = plain.recv_checkpoint(0, plain.metadata(), 7, LIMIT)
        kept = not same(mine, state(0))
        got = placing.recv_checkpoint(0, placing.metadata(), 8)
        placed = alike(mine, state(0)) and same(got, state(0))
        stayed = addresses == [t.data_ptr() for t in tensors(mine)] == [t.data_ptr() for t in tensors(got)]
        say(new=same(new, state(0)), kept=kept, placed=placed, addresses=stayed)

    faults = []
    if rank == 0:
        true = checkpoint_transport.checksum
        checkpoint_transport.checksum = lambda tensor: (
            true(tensor) ^ (tensor.dim() == 2 and len(tensor) == 1500)
        )  # type: ignore[assignment]
        plain.send_checkpoint([1, 2], 9, mine, LIMIT)
        checkpoint_transport.checksum = true
        plain.send_checkpoint([1, 2], 10, mine, LIMIT)
        faults.append(outcome(lambda: plain.send_checkpoint([1], 11, {"x": object()}, LIMIT)))
        me.together("sent")
    else:
        faults.append(outcome(lambda: plain.recv_checkpoint(0, plain.metadata(), 9, LIMIT)))
        faults.append(outcome(lambda: plain.recv_checkpoint(0, plain.metadata(), 11, LIMIT)))
        faults.append(outcome(lambda: plain.recv_checkpoint(0, "http://elsewhere", 11, LIMIT)))
        me.together("sent")
    begun = time.monotonic()
    if rank == 1:
        faults.append(outcome(lambda: plain.recv_checkpoint(0, plain.metadata(), 12, 0.5)))
    say(faults=faults, seconds=time.monotonic() - begun)
    me.together("late")

    if rank == 2:
        die()
    if rank == 0:
        plain.send_checkpoint([2], 13, mine, LIMIT)
        say(survived=True)


def parts(*, rank: int, ranks: int, path: str) -> None:
    """A DTensor: its part travels, to where there is one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    me = Rank(rank, ranks, path)
    me.reconfigure(1, me.collect("all"))
    mesh = init_device_mesh("cpu", (ranks,))
    whole = torch.arange(12.0).reshape(6, 2)
    mine = {"w": distribute_tensor(whole * (1 + rank) if rank else whole, mesh, [Shard(0)])}
    plain = our_dist.CheckpointTransport(me.group)
    placing = our_dist.CheckpointTransport(me.group, state_dict=lambda: mine)
    if rank == 0:
        plain.send_checkpoint([1], 1, mine, LIMIT)
        plain.send_checkpoint([1], 2, mine, LIMIT)
    else:
        fault = outcome(lambda: placing.recv_checkpoint(0, plain.metadata(), 1, LIMIT))
        local = mine["w"].to_local().tolist()
        # What was sent without a receiver to fit is taken from the group all the same.
        say(fault=fault, local=local, wanted=whole[:3].tolist())
        placing.recv_checkpoint(0, plain.metadata(), 2, LIMIT)
    me.together("end")
