"""Restoring from the snapshots of several trainers, as a checkpoint is loaded by another number of ranks:
what they held together is one state, of which each rank takes its boxes, from the memory of its own host or
of another one.

All ranks do the same, round by round: who has what; who maps what nobody has; the tables of one step; what
each wants of whom; then the bytes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from ..checkpoint.coordination import Coordination
from ..checkpoint.manifest import Manifest
from ..checkpoint.rank_record import merge
from ..checkpoint.stats import LoadInfo
from ..checkpoint.targets import Fit, Targets
from ..errors import NoSnapshotError, PcclError, in_words
from ..state.train_state import TrainState
from . import ask, places
from .between_ranks import Request, bring
from .buffers import Buffers
from .copying import parts, raw_of
from .keeper_client import Kept
from .table import Table
from .table import decode as decode_table
from .verified import Verified

Exchange = Callable[[bytes], list[bytes]]
Connect = Callable[[str], Any]


class Told:
    """What ranks say of their own snapshots, and which of it is the newest state that was saved together:
    `names`: of the trainers that hold it, by their rank then."""

    def __init__(self, by_rank: Sequence[Mapping[str, Any]]) -> None:
        self.trainers = {str(one["trainer"]): rank for rank, one in enumerate(by_rank)}
        self.lacking = [f"rank {rank}: {one['why']}" for rank, one in enumerate(by_rank) if one["why"]]
        newest = max(by_rank, key=lambda one: int(one["newest"]))
        self.names = [str(name) for name in newest["names"]]


def own_words(trainer: str, kept: Sequence[Kept], why: str) -> dict[str, Any]:
    """What this rank says in the first round."""
    newest = max(kept, key=lambda one: one.step, default=None)
    names: list[str] = []
    if newest is not None:
        try:
            table = decode_table(newest.table(), f"the snapshot of step {newest.step} in memory")
            names = list(table.trainers) if len(table.trainers) == table.world else []
            if not names and table.world == 1:
                names = [trainer]
        except (PcclError, OSError) as error:
            why = why or in_words(error)
    steps = sorted(one.step for one in kept)
    return {
        "trainer": trainer,
        "steps": steps,
        "newest": newest.step if newest and names else -1,
        "names": names,
        "why": why,
    }


def uncovered(tables: Sequence[Table]) -> list[str]:
    """Which of the ranks that took a snapshot together are not among these: others take one, and are killed
    before all of them have a new one, while the older one is of more ranks."""
    world = max((table.world for table in tables), default=0)
    lacking = sorted(set(range(world)) - {table.record.rank for table in tables})
    return [f"ranks {lacking} of the {world} that took it are not in memory"] if lacking else []


class Several:
    """`own`: this rank's buffers; `beside`: makes those of another trainer's, at the same keeper. `connect`:
    a Communicator of these ranks alone, by a name; None: there is no run to meet in. `opened`: buffers of
    trainers that are no rank's now, to be freed when there is a newer snapshot."""

    def __init__(
        self,
        own: Buffers,
        beside: Callable[[str], Buffers],
        coordination: Coordination,
        exchange: Exchange,
        connect: Connect | None,
        fetch_s: float,
    ) -> None:
        self._own, self._beside, self._connect, self._fetch_s = own, beside, connect, fetch_s
        self._world, self._exchange = coordination.world, exchange
        self.opened: list[Buffers] = []

    def into(self, state: TrainState, step: int | str, fit: Fit, told: Told) -> LoadInfo:
        """Raises NoSnapshotError, on all ranks, and StateError."""
        begun = time.perf_counter()
        mine, whys = self._open(told)
        has = self._said(
            {"has": {name: [one.step for one in kept] for name, kept in mine.items()}, "why": whys}
        )
        whys = [why for one in has for why in one["why"]] + told.lacking
        skipped: list[tuple[int, str]] = []
        for candidate in self._candidates(step, told, has):
            with ExitStack() as open_ones:
                verified, fault = self._verified(mine, candidate, told, has, open_ones)
                tables, faults = self._tables(verified, fault)
                faults = faults or uncovered([table for _, table in tables.values()])
                if faults:
                    skipped.append((candidate, "; ".join(faults)))
                    continue
                return self._read(state, fit, candidate, told, verified, tables, skipped, begun)
        reasons = [f"step {number}: {why}" for number, why in skipped] or whys
        raise NoSnapshotError(
            "; ".join(dict.fromkeys(reasons))
            or f"no step that trainers {told.names} all hold: load a checkpoint"
        )

    # --- Who has what.

    def _open(self, told: Told) -> tuple[dict[str, list[Kept]], list[str]]:
        """This rank's own, and its share of those that are nobody's now."""
        mine = {self._own.trainer: self._own.kept} if self._own.trainer in told.names else {}
        strangers = [name for name in told.names if name not in told.trainers]
        here = self._said({"here": [name for name in self._held_here() if name in strangers]})
        whys = []
        for number, name in enumerate(strangers):
            holders = [rank for rank, one in enumerate(here) if name in one["here"]]
            if (holders or [number % self._world.size])[0] == self._world.rank:
                try:
                    mine[name] = self._fetched(name)
                except (PcclError, OSError) as error:
                    whys.append(in_words(error))
        return mine, whys

    def _held_here(self) -> list[str]:
        try:
            found = ask.summary(places.place(self._own.run, self._own.name).socket)
        except (PcclError, OSError):
            return []
        return [] if found is None else [one.trainer for one in found.trainers if one.step >= 0]

    def _fetched(self, name: str) -> list[Kept]:
        buffers = self._beside(name)
        self.opened.append(buffers)
        buffers.attach(start=False)
        if not buffers.kept and buffers.protected:
            buffers.fetch(self._fetch_s)
        return buffers.kept

    def _candidates(self, step: int | str, told: Told, has: Sequence[Mapping[str, Any]]) -> list[int]:
        """Newest first: those that there are of all trainers."""
        steps = {name: {one for words in has for one in words["has"].get(name, [])} for name in told.names}
        common = set.intersection(*steps.values()) if steps else set()
        return sorted((one for one in common if step in ("latest", one)), reverse=True)

    # --- One step.

    def _verified(
        self,
        mine: Mapping[str, Sequence[Kept]],
        step: int,
        told: Told,
        has: Sequence[Mapping[str, Any]],
        open_ones: ExitStack,
    ) -> tuple[dict[str, Verified], str]:
        """Those of which this rank is the first that has them."""
        found: dict[str, Verified] = {}
        for name in told.names:
            first = next(rank for rank, one in enumerate(has) if step in one["has"].get(name, []))
            if first == self._world.rank:
                kept = next(one for one in mine[name] if one.step == step)
                try:
                    found[name] = open_ones.enter_context(Verified(kept))
                except (PcclError, OSError) as error:
                    return found, f"trainer {name!r}: {error}"
        return found, ""

    def _tables(
        self, verified: Mapping[str, Verified], fault: str
    ) -> tuple[dict[int, tuple[int, Table]], list[str]]:
        """By the rank that saved it: the rank that has it now, and its table."""
        words = [
            json.dumps({"fault": fault, "sizes": {name: len(one.words) for name, one in verified.items()}})
        ]
        data = words[0].encode() + b"\n" + b"".join(one.words for one in verified.values())
        tables: dict[int, tuple[int, Table]] = {}
        faults = []
        for rank, given in enumerate(self._exchange(data)):
            head, _, body = given.partition(b"\n")
            said, at = json.loads(head), 0
            faults += [said["fault"]] if said["fault"] else []
            for name, size in said["sizes"].items():
                table = decode_table(body[at : at + size], f"the table of trainer {name!r}")
                tables[table.record.rank] = (rank, table)
                at += size
        return tables, faults

    def _read(
        self,
        state: TrainState,
        fit: Fit,
        step: int,
        told: Told,
        verified: Mapping[str, Verified],
        tables: Mapping[int, tuple[int, Table]],
        skipped: list[tuple[int, str]],
        begun: float,
    ) -> LoadInfo:
        local = {one.table.record.rank: one.data for one in verified.values()}
        files = [rank for rank in sorted(tables) if tables[rank][1].record.shard is not None]
        manifest, targets, fault = self._planned(state, fit, step, tables, local)
        planned = [] if manifest is None or targets is None else list(parts(manifest, targets))
        wanted = [Request(tables[saver := files[one.piece.shard]][0], saver, one) for one in planned]
        elsewhere = [one for one in wanted if one.saver not in local]
        bring(elsewhere, local, self._world, self._exchange, self._connect, fault)
        with torch.no_grad():
            for one in wanted:
                if one.saver in local:
                    one.part.fill(raw_of(local[one.saver], one.part.offset, one.part.bytes))
        assert targets is not None
        targets.take()
        count = sum(one.part.bytes for one in wanted)
        missing = (*targets.missing, *targets.begun)
        where = f"the snapshots of trainers {', '.join(map(repr, told.names))}"
        seconds = time.perf_counter() - begun
        return LoadInfo(step, where, count, seconds, missing, tuple(targets.unexpected), tuple(skipped))

    def _planned(
        self,
        state: TrainState,
        fit: Fit,
        step: int,
        tables: Mapping[int, tuple[int, Table]],
        local: Mapping[int, object],
    ) -> tuple[Manifest | None, Targets | None, Exception | None]:
        """A fault is told to the others before it is raised."""
        try:
            records = [table.record for _, table in tables.values()]
            world = max(table.world for _, table in tables.values())
            manifest = merge(records, step=step, time=0.0, world=world, prefer=set(local))
            targets = fit.targets(state, manifest, self._world, f"the snapshot of step {step}")
            return manifest, targets, None
        except PcclError as error:
            return None, None, error

    def _said(self, words: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self._exchange(json.dumps(words).encode())]
