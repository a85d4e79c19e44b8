"""torch's reconfigure contract (its own from 2.14 on, torchft's before): a group becomes one of other peers.

Whoever decides on members (a lighthouse, a script) collects a handle of each, and gives all of them the same
list and a number that was never used: rank r is the r-th of a list; a set is put in order here. They meet in
a run of its own, at the master that the first handle names, and become a group when all have passed a barrier
there, which all do or none: then the old run is left, else it stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import platform
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..errors import ConnectError, MasterLost, UsageError
from .group import Group
from .member import BARRIER, Member
from .rendezvous import Meeting, in_order, own_meeting
from .torch_work import seconds_of


@dataclass
class ReconfigureOptions:
    """As torch has it from 2.14 on. `uuid`: never used before with this group; `handles`: of all members,
    this one's too; `timeout`: until all have come, None: the group's; `hints`: none are known."""

    uuid: int = 0
    handles: Any = ()
    timeout: timedelta | None = None
    hints: Any = None


class Place:
    """Where the peers of one group meet to become another one. `meeting`: None until somebody asks."""

    def __init__(self, meeting: Meeting | None = None) -> None:
        self.id = secrets.token_hex(8)
        self.meeting = meeting
        self._used: set[int] = set()

    def handle(self, group: Group) -> str:
        """Names this group, and a master that lives as long as this process, started where none does."""
        if self.meeting is None or not (self.meeting.held or group.is_live):
            self.meeting = own_meeting()
        told = self.meeting
        return json.dumps(
            {
                "id": self.id,
                "addresses": told.addresses,
                "secret": told.secret.hex(),
                "encrypt": told.encrypt,
                "local": told.local,
                "host": platform.node(),
            }
        )

    def meet(self, options: Any, group: Group) -> tuple[Meeting, Member]:
        """All members come here. Raises where one of them does not; this group's old peers stay its peers."""
        handles = options.handles
        listed = list(handles) if isinstance(handles, list | tuple) else sorted(handles)
        uuid, told = int(options.uuid), [_parsed(handle) for handle in listed]
        if uuid in self._used:
            raise UsageError(f"uuid {uuid} was already used with this group: pass one that never was")
        ids = [each["id"] for each in told]
        if ids.count(self.id) != 1 or len(set(ids)) != len(ids):
            raise UsageError("handles: each member's last one, once, and this group's own among them")
        self._used.add(uuid)
        limit = seconds_of(options.timeout) or group.timeout_s
        meeting = _meeting_at(told[0], f"reconfigured-{uuid}-{_digest(listed)}", self.meeting)
        try:
            return meeting, _together(meeting, ids.index(self.id), len(ids), limit)
        except (ConnectError, MasterLost):
            self.meeting = None  # what the next handle names has to be alive
            raise


def _together(meeting: Meeting, rank: int, size: int, limit: float | None) -> Member:
    member = meeting.join(rank, size, limit)
    try:
        member.whole(BARRIER, [], None, peers=size, on_loss="raise", timeout=limit).wait()
    except BaseException:
        member.leave()
        raise
    return member


def _digest(handles: Sequence[str]) -> str:
    """Members that were given different lists do not meet."""
    return hashlib.sha256("\n".join(handles).encode()).hexdigest()[:12]


def _parsed(handle: str) -> dict[str, Any]:
    try:
        told = json.loads(handle)
        return {
            "id": str(told["id"]),
            "addresses": [str(address) for address in told["addresses"]],
            "secret": bytes.fromhex(told["secret"]),
            "encrypt": bool(told["encrypt"]),
            "local": bool(told["local"]),
            "host": str(told["host"]),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{str(handle)[:60]!r} is no handle of a pccl group: {error!r}") from error


def _meeting_at(told: dict[str, Any], run: str, own: Meeting | None) -> Meeting:
    addresses = tuple(in_order(told["addresses"], told["host"]))
    held = own.held if own is not None and set(own.addresses) == set(addresses) else None
    return Meeting(addresses, run, told["secret"], told["encrypt"], told["local"], held)
