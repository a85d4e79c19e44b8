"""Bytes of snapshots from ranks that have them mapped to those that want them, over links of their own."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import NoSnapshotError, StateError
from ..state.boxed import World
from .copying import Part, raw_of

TENSORS_MAX = 16_000  # of one operation


class Request(NamedTuple):
    """`part` of what old rank `saver` saved, which the rank `holder` has."""

    holder: int
    saver: int
    part: Part


def bring(
    requests: Sequence[Request],
    local: Mapping[int, memoryview],
    world: World,
    exchange: Callable[[bytes], list[bytes]],
    connect: Callable[[str], Any] | None,
    fault: Exception | None,
) -> None:
    """All ranks call it. `local`: by saver, what this one has; `fault`: why it wants nothing, raised here,
    and told to the others."""
    wanted = [[one.holder, one.saver, one.part.offset, one.part.bytes] for one in requests]
    words = {"wants": wanted, "fault": "" if fault is None else str(fault), "nonce": secrets.token_hex(8)}
    told = [json.loads(text) for text in exchange(json.dumps(words).encode())]
    if fault is not None:
        raise fault
    for rank, one in enumerate(told):
        if one["fault"]:
            raise StateError(f"rank {rank}: {one['fault']}")
    if not any(one["wants"] for one in told):
        return
    if connect is None:
        raise NoSnapshotError(
            "shards that this rank needs are in the memory of other hosts: pass comm= and parity=, or load a "
            "checkpoint"
        )
    with connect(f"reshaped-{told[0]['nonce']}") as comm:
        _move(comm, requests, local, world, [one["wants"] for one in told])


def _move(
    comm: Any,
    requests: Sequence[Request],
    local: Mapping[int, memoryview],
    world: World,
    wants: Sequence[Sequence[Sequence[int]]],
) -> None:
    """Everything is posted at once; each pair's operations come in one order."""
    works = []
    for rank, wanted in enumerate(wants):
        mine = [raw_of(local[saver], at, size) for holder, saver, at, size in wanted if holder == world.rank]
        for batch in _batches(mine):
            works.append(comm.send(batch, rank, tag=_tag(world.rank, rank, world), async_op=True))
    arriving: list[tuple[Request, Tensor, bool]] = []
    for holder in range(world.size):
        due = [_place(one) for one in requests if one.holder == holder]
        for batch in _batches([memory for _, memory, _ in due]):
            works.append(comm.recv(batch, holder, tag=_tag(holder, world.rank, world), async_op=True))
        arriving += due
    for work in works:
        work.wait()
    with torch.no_grad():
        for one, memory, straight in arriving:
            if not straight:
                one.part.fill(memory)


def _place(one: Request) -> tuple[Request, Tensor, bool]:
    """Into the tensor itself, where it lies there as it was saved."""
    straight = one.part.straight()
    if straight is not None:
        return one, straight, True
    return one, torch.from_numpy(np.empty(one.part.bytes, np.uint8)), False


def _tag(source: int, target: int, world: World) -> int:
    return 1 + source * world.size + target


def _batches(tensors: list[Tensor]) -> list[list[Tensor]]:
    return [tensors[at : at + TENSORS_MAX] for at in range(0, len(tensors), TENSORS_MAX)]
