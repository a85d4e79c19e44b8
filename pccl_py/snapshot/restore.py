"""From a snapshot in memory into a training state, as from a checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..checkpoint.coordination import Coordination
from ..checkpoint.manifest import Manifest
from ..checkpoint.stats import LoadInfo
from ..checkpoint.targets import Fit, Targets
from ..errors import NoSnapshotError, PcclError, StateError, in_words
from ..state.train_state import TrainState
from .buffers import Buffers
from .copying import is_whole, parts, raw_of
from .several import Connect, Several, Told, own_words
from .verified import Verified


class Restore:
    """One restore of this trainer, the `number`-th; all ranks do the same, step by step.

    The newest step that all of them hold, and whose bytes are sound on all, is taken; nothing is filled from
    any other. Where it was saved by other ranks than these, or laid out otherwise, all together have it: see
    several.py. `why`: `buffers` have nothing.
    """

    def __init__(
        self,
        buffers: Buffers,
        coordination: Coordination,
        number: int,
        timeout_s: float,
        fetch_s: float,
        connect: Connect | None,
        why: str = "",
    ) -> None:
        self._buffers, self._kept = buffers, {one.step: one for one in buffers.kept}
        self._where = f"the keeper of run {buffers.run!r}, trainer {buffers.trainer!r},"
        self._coordination, self._timeout_s = coordination, timeout_s
        self._number, self._round, self._why = number, 0, why
        self.skipped: list[tuple[int, str]] = []  # steps whose bytes are wrong at some rank
        self._several = Several(buffers, buffers.beside, coordination, self._exchange, connect, fetch_s)

    @property
    def opened(self) -> list[Buffers]:
        """Of trainers that are no rank's any more, and whose snapshots were read."""
        return self._several.opened

    def into(self, state: TrainState, step: int | str, fit: Fit) -> LoadInfo:
        """Raises NoSnapshotError, on all ranks, and StateError."""
        if step != "latest" and type(step) is not int:
            raise StateError(f"step {step!r}: a number, or 'latest'")
        mine = own_words(self._buffers.trainer, self._buffers.kept, self._why)
        told = [json.loads(words) for words in self._exchange(json.dumps(mine).encode())]
        together = Told(told)
        common = set.intersection(*(set(one["steps"]) for one in told))
        candidates = sorted((one for one in common if step in ("latest", one)), reverse=True)
        skipped = self.skipped
        if candidates and together.names in ([], [one["trainer"] for one in told]):
            found = self._own(state, candidates, fit)
            if found is not None:
                return found
        if together.names and not skipped:
            return self._several.into(state, step, fit, together)
        if together.lacking and not skipped:
            raise NoSnapshotError("; ".join(together.lacking))
        raise NoSnapshotError(_nothing(self._where, step, sorted(self._kept), skipped))

    def _own(self, state: TrainState, candidates: list[int], fit: Fit) -> LoadInfo | None:
        """Each rank from its own snapshot. None: one of them has not all that it needs."""
        begun = time.perf_counter()
        for candidate in candidates:
            verified, why = self._verified(candidate)
            try:
                planned, fault = self._planned(state, verified, candidate, fit)
                words = {
                    "why": why,
                    "whole": planned is not None,
                    "fault": "" if fault is None else str(fault),
                }
                said = [json.loads(text) for text in self._exchange(json.dumps(words).encode())]
                if verified is not None and not any(one["why"] for one in said):
                    _raise_first(fault, said)
                    if planned is None or not all(one["whole"] for one in said):
                        return None
                    manifest, targets = planned
                    count = _copy(verified.data, manifest, targets)
                    targets.take()
                    return self._info(candidate, count, begun, targets)
            finally:
                if verified is not None:
                    verified.close()
            self.skipped.append((candidate, "; ".join(one["why"] for one in said if one["why"])))
        return None

    def _planned(
        self, state: TrainState, verified: Verified | None, step: int, fit: Fit
    ) -> tuple[tuple[Manifest, Targets] | None, PcclError | None]:
        """None, None: this trainer's snapshot has a part alone of what it needs now."""
        if verified is None:
            return None, None
        manifest = verified.table.manifest(step, 0.0, "memory")
        try:
            targets = fit.targets(state, manifest, self._coordination.world, f"the snapshot of step {step}")
        except PcclError as error:
            return None, error
        return ((manifest, targets) if is_whole(manifest, targets) else None), None

    def _exchange(self, words: bytes) -> list[bytes]:
        self._round += 1
        return self._coordination.exchange(f"restore/{self._number}/{self._round}", words, self._timeout_s)

    def _verified(self, step: int) -> tuple[Verified | None, str]:
        try:
            return Verified(self._kept[step]), ""
        except (PcclError, OSError) as error:
            return None, in_words(error)

    def _info(self, step: int, count: int, begun: float, targets: Targets) -> LoadInfo:
        seconds = time.perf_counter() - begun
        missing = (*targets.missing, *targets.begun)
        return LoadInfo(
            step, self._where, count, seconds, missing, tuple(targets.unexpected), tuple(self.skipped)
        )


def _copy(data: memoryview, manifest: Manifest, targets: Targets) -> int:
    """Bytes that were copied: the pieces of each tensor, as far as the state has them."""
    with torch.no_grad():
        for part in parts(manifest, targets):
            part.fill(raw_of(data, part.offset, part.bytes))
    return sum(box.tensor.nbytes for places in targets.boxes.values() for box in places)


def _raise_first(own: PcclError | None, said: Sequence[Mapping[str, Any]]) -> None:
    """What does not fit on one rank is raised on all: none of them is filled alone."""
    if own is not None:
        raise own
    for rank, one in enumerate(said):
        if one["fault"]:
            raise StateError(f"rank {rank}: {one['fault']}")


def _nothing(where: str, step: int | str, kept: list[int], skipped: list[tuple[int, str]]) -> str:
    if skipped:
        return "; ".join(f"step {number}: {why}" for number, why in skipped) + ". Load the newest checkpoint"
    held = f"steps {kept}" if kept else "no complete snapshot"
    asked = "none that all ranks hold" if step == "latest" and kept else f"not step {step}"
    return f"{where} holds {held}{f', {asked}' if kept else ''}: load the newest checkpoint"
