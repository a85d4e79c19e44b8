"""Makes the process groups of the backend "pccl": for torch.distributed, and for this package's functions."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from hashlib import sha256
from typing import Any

from ..arguments import ON_LOSS, number_of
from ..errors import PcclError
from ..torch_backend import register
from .errors import translated
from .group import Group, OnLoss
from .member import Member
from .module_reset import watch_modules
from .process_group import PcclProcessGroup
from .rank_tables import follow, global_ranks, world_of
from .reconfigure import Place
from .rendezvous import Meeting, meet, meeting_of_url
from .torch_names import HashStore, Store, dist
from .torch_work import seconds_of
from .uncompiled import leave_alone

_worlds = itertools.count()  # of this process: ranks begin and end them together
_world: PcclProcessGroup | None = None
_joined: tuple[Meeting, Member] | None = None  # by the rendezvous, for the group that comes next


class Options:
    """`pg_options=pccl_py.distributed.Options(on_loss="retry")`, for this group.

    on_loss   "raise": a death raises in the operation on all survivors, and the step is repeated.
              "retry": all_reduce, reduce and barrier are repeated among the survivors without a word; what
              they sum is then of fewer ranks than the caller divides by. Calls in blocks raise in any case
    enable_reconfigure  nobody is in the group until `reconfigure()`: see reconfigure.py. (Groups that begin
              as usual can be reconfigured too.)
    """

    def __init__(self, on_loss: OnLoss = "raise", *, enable_reconfigure: bool = False) -> None:
        number_of(on_loss, ON_LOSS, "on_loss")
        self.on_loss: OnLoss = on_loss
        self.enable_reconfigure = enable_reconfigure


def create(options: Any, pg_options: Any = None) -> PcclProcessGroup:
    """What torch calls for each new group, on each of its members."""
    try:
        return _create(options, pg_options)
    except PcclError as error:
        raise translated(error) from error


def _create(options: Any, pg_options: Any) -> PcclProcessGroup:
    global _world
    timeout: timedelta = options.timeout
    limit, name = seconds_of(timeout), str(options.group_id)
    is_world = not options.global_ranks_in_group
    if is_world and _joined is not None:
        made = _newcomer(limit, pg_options)
    elif any(getattr(each, "enable_reconfigure", False) for each in (options, pg_options)):
        meeting = meet(options.store, str(next(_worlds)) if is_world else name, hold=True)
        place = options.group_rank, options.group_size
        made = _reconfigurable(meeting, "world" if is_world else name, limit, pg_options, place)
        if not is_world:
            return made
    else:
        meeting = _meeting(options, is_world)
        member = meeting.join(options.group_rank, options.group_size, limit)
        made = group_of(meeting, member, "world" if is_world else name, limit, pg_options)
    if is_world:
        _world = made
    follow(made, None if is_world else _world, options.global_ranks_in_group)
    return made


def group_of(
    meeting: Meeting, member: Member, name: str, limit: float | None, pg_options: Any
) -> PcclProcessGroup:
    """Of a member that has joined at `meeting`."""
    group = Group(member, name, timeout_s=limit, on_loss=_on_loss(pg_options))
    return _watched(group, meeting)


def _reconfigurable(
    meeting: Meeting | None, name: str, limit: float | None, pg_options: Any, place: tuple[int, int]
) -> PcclProcessGroup:
    """Nobody is in it yet."""
    return _watched(Group(None, name, timeout_s=limit, on_loss=_on_loss(pg_options), place=place), meeting)


def _watched(group: Group, meeting: Meeting | None) -> PcclProcessGroup:
    made = PcclProcessGroup(group, Place(meeting))
    made.meeting, made.part = meeting, part_of
    group.heard.append(watch_modules)
    return made


def new_reconfigurable_group(
    timeout: timedelta | None = None, pg_options: Any = None, name: str = "reconfigurable"
) -> PcclProcessGroup:
    """A process group that needs no torch.distributed, and has no peers until `reconfigure()`: what torchft's
    Manager takes as `pg`."""
    return _reconfigurable(None, name, seconds_of(timeout), pg_options, (0, 1))


def world_from(store: Store, rank: int, size: int, timeout: timedelta, pg_options: Any) -> PcclProcessGroup:
    """For this package's own functions: what torch.distributed would get, unknown to it."""
    limit = seconds_of(timeout)
    if _joined is not None:
        made = _newcomer(limit, pg_options)
    elif getattr(pg_options, "enable_reconfigure", False):
        meeting = meet(store, f"own {next(_worlds)}", hold=True)
        made = _reconfigurable(meeting, "world", limit, pg_options, (rank, size))
    else:
        meeting = meet(store, f"own {next(_worlds)}")
        made = group_of(meeting, meeting.join(rank, size, limit), "world", limit, pg_options)
    follow(made, None, ())
    return made


def _newcomer(limit: float | None, pg_options: Any) -> PcclProcessGroup:
    """In a run that it has joined already."""
    global _joined
    assert _joined is not None
    (meeting, member), _joined = _joined, None
    made = group_of(meeting, member, "world", limit, pg_options)
    if member.boundaries:  # the run had begun: the others do the same behind the boundary that let it in
        made.group.agree()
    return made


def part_of(
    parent: PcclProcessGroup, ranks: list[int], name: str, timeout: timedelta | None, pg_options: Any
) -> PcclProcessGroup:
    """The group of the parent's `ranks`, of which the caller is one; all of them call it."""
    limit = parent.group.timeout_s if timeout is None else seconds_of(timeout)
    meeting = _meeting_within(parent, ranks)
    member = meeting.join(ranks.index(parent.rank()), len(ranks), limit)
    made = group_of(meeting, member, name, limit, pg_options)
    of_world = global_ranks(parent)
    follow(made, world_of(parent), [of_world[rank] for rank in ranks])
    return made


def _meeting(options: Any, is_world: bool) -> Meeting:
    if is_world:
        return meet(options.store, str(next(_worlds)))
    if _world is not None and dist.is_initialized() and dist.group.WORLD is _world:
        return _meeting_within(_world, options.global_ranks_in_group)
    return meet(options.store, str(options.group_id))  # a pccl group in a world of another backend


def _meeting_within(parent: PcclProcessGroup, ranks: Sequence[int]) -> Meeting:
    """Of these ranks of it. By who they are, and how often they have met: a newcomer has not counted the
    groups that were made before it came, as torch's names do."""
    peers = ",".join(str(peer) for peer in sorted(parent.group.ids[rank] for rank in ranks))
    times = parent.parts_made[peers]
    parent.parts_made[peers] += 1
    meeting: Meeting = parent.meeting
    return meeting.within(f"{peers if len(peers) < 64 else sha256(peers.encode()).hexdigest()} {times}")


def _on_loss(pg_options: Any) -> OnLoss:
    if pg_options is not None:
        return Options(getattr(pg_options, "on_loss", "raise")).on_loss
    return Options(os.environ.get("PCCL_ON_LOSS", "raise")).on_loss  # type: ignore[arg-type]


def rendezvous(url: str, timeout: timedelta | None = None, **_: Any) -> Iterator[tuple[Store, int, int]]:
    """`init_method="pccl://host:port?..."`: joins a run; where it has begun, at its next step boundary."""
    global _joined
    meeting = meeting_of_url(url)
    try:
        member = meeting.join(None, 1, seconds_of(timeout))
    except PcclError as error:
        raise translated(error) from error
    _joined = (meeting, member)
    yield HashStore(), member.rank, member.world_size


register()
leave_alone("pccl_py")
