"""torch.distributed's functions about groups, on this package's groups.

Where torch.distributed runs with the backend "pccl", these are its groups; else this module keeps its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from ..arguments import ON_LOSS, number_of
from ..communicator import Communicator
from ..errors import UsageError
from . import backend as groups
from .availability import check_backend
from .errors import translated
from .group import OnLoss
from .process_group import PcclProcessGroup
from .rank_tables import global_ranks
from .torch_names import Store, dist

ProcessGroup = PcclProcessGroup
GroupMember = dist.GroupMember
default_timeout = timedelta(minutes=30)

_own: PcclProcessGroup | None = None
_parts: list[PcclProcessGroup] = []
_names = itertools.count(1)
_seen: dict[int, int] = {}  # by group: the changes that world_changed() has told of


class _HasWorld(type):
    @property
    def WORLD(cls) -> PcclProcessGroup | None:
        return _world()


class group(metaclass=_HasWorld):
    """`group.WORLD`, as torch has it."""


def _world() -> PcclProcessGroup | None:
    if _own is not None:
        return _own
    if dist.is_initialized() and isinstance(dist.group.WORLD, PcclProcessGroup):
        return dist.group.WORLD
    return None


def resolve(given: Any) -> PcclProcessGroup:
    """The group that a call means; None is the world."""
    if given is None:
        world = _world()
        if world is None:
            raise translated(UsageError("there is no default process group: call init_process_group() first"))
        return world
    if not isinstance(given, PcclProcessGroup):
        raise translated(UsageError(f"{type(given).__qualname__} is no process group of pccl_py.distributed"))
    return given


def is_available() -> bool:
    """True: this package needs nothing else."""
    return True


def is_initialized() -> bool:
    """Whether there is a default group, of init_process_group here or of torch's with "pccl"."""
    return _world() is not None


def is_torchelastic_launched() -> bool:
    """Whether torchrun has started this process."""
    return bool(dist.is_torchelastic_launched())


def init_process_group(
    backend: str | None = None,
    init_method: str | None = None,
    timeout: timedelta | None = None,
    world_size: int = -1,
    rank: int = -1,
    store: Store | None = None,
    group_name: str = "",
    pg_options: Any = None,
    device_id: Any = None,
    _ranks: Sequence[int] | None = None,
) -> None:
    """As torch's, and without it: torch.distributed stays as it is.

    backend       "pccl" or None. With "nccl" or "gloo", as a script for torch.distributed names them, a line
                  in the log says that this backend takes their place
    init_method   env:// (the default), tcp://, file://, or pccl://host:port?run_name=...&secret_file=...,
                  which joins a run, where it has begun, at its next update_topology()
    pg_options    Options(on_loss=...)

    Of `group_name` and `device_id` nothing is needed.
    """
    global _own
    check_backend(backend)
    if _world() is not None:
        raise ValueError("trying to initialize the default process group twice!")
    limit = default_timeout if timeout is None else timeout
    if store is None:
        found = dist.rendezvous(init_method or "env://", rank, world_size, timeout=limit)
        store, rank, world_size = next(found)
    elif init_method is not None or rank < 0 or world_size < 1:
        raise ValueError("with a store, pass rank and world_size, and no init_method")
    store.set_timeout(limit)
    _own = groups.world_from(store, rank, world_size, limit, pg_options)


def destroy_process_group(group: PcclProcessGroup | None = None) -> None:
    """Leaves the group, or all of them."""
    global _own
    if _own is None:
        dist.destroy_process_group(group)
        return
    if group is None or group is _own:
        for part in reversed(_parts):
            part.shutdown()
        _parts.clear()
        _seen.clear()
        _own.shutdown()
        _own = None
    else:
        resolve(group).shutdown()
        _parts.remove(group)


def get_pg_count() -> int:
    """Groups of this process, the world among them."""
    return int(dist.get_pg_count()) if _own is None else 1 + len(_parts)


def get_rank(group: PcclProcessGroup | None = None) -> int:
    """-1 where the caller is no member."""
    return -1 if group is GroupMember.NON_GROUP_MEMBER else resolve(group).rank()


def get_world_size(group: PcclProcessGroup | None = None) -> int:
    """Ranks of the group now: it shrinks when one dies. -1 where the caller is no member."""
    return -1 if group is GroupMember.NON_GROUP_MEMBER else resolve(group).size()


def get_backend(group: PcclProcessGroup | None = None) -> str:
    """The name of the backend: pccl."""
    return resolve(group).name()


def get_process_group_ranks(group: PcclProcessGroup | None) -> list[int]:
    """Ranks in the world, as they are now, by rank in the group."""
    return global_ranks(resolve(group))


def get_global_rank(group: PcclProcessGroup, group_rank: int) -> int:
    """The rank in the world of a rank of the group. ValueError where there is none."""
    ranks = get_process_group_ranks(group)
    if not 0 <= group_rank < len(ranks):
        raise ValueError(f"group rank {group_rank} is not part of a group of {len(ranks)}")
    return ranks[group_rank]


def get_group_rank(group: PcclProcessGroup, global_rank: int) -> int:
    """The rank in the group of a rank of the world. ValueError where there is none."""
    ranks = get_process_group_ranks(group)
    if global_rank not in ranks:
        raise ValueError(f"global rank {global_rank} is not part of the group, which has {ranks}")
    return ranks.index(global_rank)


def get_node_local_rank(fallback_rank: int | None = None) -> int:
    """LOCAL_RANK of torchrun, or the fallback. RuntimeError where there is neither."""
    return int(dist.get_node_local_rank(fallback_rank))


def new_group(
    ranks: Sequence[int] | None = None,
    timeout: timedelta | None = None,
    backend: str | None = None,
    pg_options: Any = None,
    use_local_synchronization: bool = False,
    group_desc: str | None = None,
    device_id: Any = None,
    sort_ranks: bool = True,
) -> Any:
    """Every rank of the world calls it; returns GroupMember.NON_GROUP_MEMBER where it is not in `ranks`."""
    world = resolve(None)
    if _own is None:
        return dist.new_group(ranks, timeout, backend, pg_options, use_local_synchronization, group_desc)
    wanted = list(range(world.size()) if ranks is None else ranks)
    if sort_ranks:
        wanted.sort()
    if len(set(wanted)) != len(wanted) or not all(0 <= rank < world.size() for rank in wanted):
        raise ValueError(f"ranks={wanted}: the world has {world.size()} ranks, and each may be named once")
    name = f"{next(_names)}"
    if use_local_synchronization:
        name = "-".join(map(str, wanted))
    if world.rank() not in wanted:
        return GroupMember.NON_GROUP_MEMBER
    made = groups.part_of(world, wanted, name, timeout, pg_options)
    made._set_group_desc(group_desc or "undefined")
    _parts.append(made)
    return made


def new_subgroups(
    group_size: int | None = None,
    group: PcclProcessGroup | None = None,
    timeout: timedelta | None = None,
    backend: str | None = None,
    pg_options: Any = None,
    group_desc: str | None = None,
) -> tuple[Any, list[Any]]:
    """(the caller's group, all groups): the world in pieces of `group_size`."""
    size = get_world_size()
    if not group_size or size % group_size:
        raise ValueError(f"group_size={group_size}: it divides the world size, {size}")
    pieces = [list(range(first, first + group_size)) for first in range(0, size, group_size)]
    return new_subgroups_by_enumeration(pieces, timeout, backend, pg_options, group_desc)


def new_subgroups_by_enumeration(
    ranks_per_subgroup_list: Sequence[Sequence[int]],
    timeout: timedelta | None = None,
    backend: str | None = None,
    pg_options: Any = None,
    group_desc: str | None = None,
) -> tuple[Any, list[Any]]:
    """(the caller's group, all groups)"""
    named = [rank for ranks in ranks_per_subgroup_list for rank in ranks]
    if not named or len(set(named)) != len(named):
        raise ValueError("each rank belongs to one of the subgroups")
    own = GroupMember.NON_GROUP_MEMBER
    made = []
    for ranks in ranks_per_subgroup_list:
        part = new_group(ranks, timeout, backend, pg_options, group_desc=group_desc)
        made.append(part)
        own = part if get_rank() in ranks else own
    return own, made


def split_group(
    parent_pg: PcclProcessGroup | None = None,
    split_ranks: Sequence[Sequence[int]] | None = None,
    timeout: timedelta | None = None,
    pg_options: Any = None,
    group_desc: str | None = None,
    backend: str | None = None,
) -> Any:
    """The caller's piece of the parent; `split_ranks` are ranks in the parent."""
    if not split_ranks:
        raise ValueError("split_ranks is empty: pass a list of lists of ranks")
    of_world = get_process_group_ranks(parent_pg)
    pieces = [[of_world[rank] for rank in ranks] for ranks in split_ranks]
    return new_subgroups_by_enumeration(pieces, timeout, backend, pg_options, group_desc)[0]


# ---- what torch has not ----------------------------------------------------------------------------------


def update_topology(group: PcclProcessGroup | None = None, timeout: float | None = None) -> bool:
    """A step boundary, which all ranks of the group call: newcomers come in, with the last ranks. Whether any
    came: the same on all ranks, so that it may decide what they call next. Costs no message while nobody
    waits."""
    return resolve(group).update_topology(timeout)


def world_changed(group: PcclProcessGroup | None = None) -> bool:
    """Whether ranks have come or gone since the last time that it was asked (or since the group began)."""
    asked = resolve(group)
    changes = asked.group.changes
    changed = changes != _seen.get(id(asked), 0)
    _seen[id(asked)] = changes
    return changed


def communicator(group: PcclProcessGroup | None = None) -> Communicator:
    """What the group is built on: for sync_shared_state() and peers(). Leave its operations to the group."""
    member: Communicator = resolve(group).group.member
    return member


def invitation(secret_file: str | os.PathLike[str] | None = None) -> str:
    """An `init_method` with which newcomers join the world. `secret_file`: where to write its secret for
    them, readable by this user alone; needed unless PCCL_SECRET_FILE was set when the world began."""
    meeting = resolve(None).meeting
    url = f"pccl://{meeting.addresses[0]}?run_name={quote(meeting.run)}"
    if meeting.secret:
        url += "&encrypt=yes" if meeting.encrypt else "&encrypt=no"
    if secret_file is None:
        return url
    descriptor = os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(meeting.secret)
    return f"{url}&secret_file={quote(os.fspath(secret_file))}"


def set_on_loss(on_loss: OnLoss, group: PcclProcessGroup | None = None) -> None:
    """What a death does from now on, the same on all ranks: see Options."""
    number_of(on_loss, ON_LOSS, "on_loss")
    resolve(group).group.on_loss = on_loss
