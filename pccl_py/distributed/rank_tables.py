"""Keeps torch's tables of global ranks in step with the ranks of groups that have shrunk or grown."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch.distributed import distributed_c10d as c10d

# Of each group: the ids of its members in its own run, and in the world's.
_known: weakref.WeakKeyDictionary[Any, tuple[Any, dict[int, int]]] = weakref.WeakKeyDictionary()


def follow(made: Any, world: Any, global_ranks: Sequence[int]) -> None:
    """`made`: a process group; `world`: of which it is a part, None where it is the world itself."""
    group = made.group
    if world is None:
        reference = weakref.ref(made)
        group.heard.append(lambda: _renumber_all(reference()))
        return
    of_world = world.group.ids
    if max(global_ranks, default=-1) >= len(of_world):
        return
    origin = {peer: of_world[rank] for peer, rank in zip(group.ids, global_ranks, strict=True)}
    _known[made] = (world, origin)
    reference = weakref.ref(made)
    group.heard.append(lambda: _renumber(reference()))


def _renumber_all(world: Any) -> None:
    if world is None:
        return
    table = c10d._world.pg_group_ranks
    if world in table:
        table[world] = {rank: rank for rank in range(world.group.size)}
    for made, (of, _) in list(_known.items()):
        if of is world:
            _renumber(made)


def world_of(made: Any) -> Any:
    """The group that its global ranks are of."""
    return _known[made][0] if made in _known else made


def global_ranks(made: Any) -> list[int]:
    """By rank in the group: the rank in the world. Negative for a member that the world has lost already."""
    if made not in _known:
        return list(range(made.group.size))
    world, origin = _known[made]
    places = {peer: rank for rank, peer in enumerate(world.group.ids)}
    return [places.get(origin.get(peer, -1), -1 - rank) for rank, peer in enumerate(made.group.ids)]


def stand_alone(made: Any) -> None:
    """Its ranks are of no other group any more: it was reconfigured."""
    _known.pop(made, None)
    if made in c10d._world.pg_group_ranks:
        c10d._world.pg_group_ranks[made] = {rank: rank for rank in range(made.group.size)}


def _renumber(made: Any) -> None:
    if made is None or made not in c10d._world.pg_group_ranks:
        return
    c10d._world.pg_group_ranks[made] = {world: rank for rank, world in enumerate(global_ranks(made))}
