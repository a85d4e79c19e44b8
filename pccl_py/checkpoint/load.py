"""Loading: the newest step that all ranks can read, into whatever layout they have now."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, DamagedError, NoCheckpointError, StateError
from ..state.targets import Mapped, Targets, targets_of
from ..state.train_state import TrainState
from . import folder, native
from .coordination import Coordination
from .local_level import LocalLevel
from .read import read_tensors
from .remote_source import RemoteSource
from .stats import LoadInfo

_SHOWN = 8
FETCHES = 10  # times the usual patience: one rank may fetch a whole step for all
T = TypeVar("T")


class Loader:
    """One load() of one rank, its `number`-th; all ranks do the same, step by step."""

    def __init__(
        self,
        level: LocalLevel,
        disk: native.Disk,
        coordination: Coordination,
        number: int,
        timeout_s: float,
        remote: RemoteSource | None = None,
    ) -> None:
        self._level, self._disk, self._remote = level, disk, remote
        self._coordination, self._timeout_s = coordination, timeout_s
        self._number, self._round = number, 0
        self._there: set[int] = set()  # steps at the remote

    def load(
        self,
        state: TrainState,
        step: int | str,
        *,
        strict: bool,
        parts: list[str] | None,
        mapping: Mapped | None,
    ) -> LoadInfo:
        begun = time.perf_counter()
        skipped: list[tuple[int, str]] = []

        def read() -> tuple[folder.StepFolder, Targets, int]:
            found = self._level.step(candidate)
            targets = self._targets(state, found, strict, parts, mapping)
            return found, targets, read_tensors(self._disk, found.path, _manifest(found), targets.boxes)

        for candidate in self._candidates(step):
            with self._level.holds.held(candidate):
                result, why = self._try(read)
                fetched = 0
                if why is not None and self._remote is not None and self._elsewhere(step, candidate):
                    came, missing = self._try(partial(self._remote.fetch, candidate), FETCHES)
                    if missing is None:
                        fetched = came or 0
                        result, why = self._try(read)
                    else:
                        damaged = isinstance(why, DamagedError) or isinstance(missing, DamagedError)
                        kind = DamagedError if damaged else NoCheckpointError
                        why = kind(f"{why}; nor does it come from the remote: {missing}")
            if why is None and result is not None:
                found, targets, count = result
                targets.take()
                return _info(candidate, found.path, count, begun, targets, skipped, fetched)
            if step != "latest":
                raise why or DamagedError(f"step {candidate} cannot be read")
            skipped.append((candidate, str(why)))
        raise NoCheckpointError(_nothing(self._level.root, skipped))

    def _try(self, action: Callable[[], T], times: int = 1) -> tuple[T | None, CheckpointError | None]:
        """What it returns, or why some rank has none."""
        fault: CheckpointError | None = None
        result: T | None = None
        try:
            result = action()
        except StateError:
            raise
        except CheckpointError as error:
            fault = error
        words = b"" if fault is None else str(fault).encode()
        given = self._coordination.exchange(self._key("read"), words, self._timeout_s * times)
        if fault is None and (text := next((text for text in given if text), None)) is not None:
            fault = DamagedError(f"another rank cannot read it: {text.decode()}")
        return result, fault

    def _elsewhere(self, step: int | str, candidate: int) -> bool:
        """Whether to ask the remote: by what rank 0 saw there, or because it was asked for."""
        return step != "latest" or candidate in self._there

    def _candidates(self, step: int | str) -> list[int]:
        """Newest first; on several ranks those that all of them have."""
        if isinstance(step, int) and not isinstance(step, bool):
            return [step]
        if step != "latest":
            raise StateError(f"step {step!r}: a number, or 'latest'")
        said: dict[str, list[int]] = {"here": [found.step for found in folder.scan(self._level.root).steps]}
        if self._remote is not None and self._coordination.world.rank == 0:
            said["there"] = self._remote.steps()
        given = self._coordination.exchange(self._key("steps"), json.dumps(said).encode(), self._timeout_s)
        told = [json.loads(words) for words in given]
        self._there = set(told[0].get("there", []))
        return sorted(set.intersection(*(set(words["here"]) for words in told)) | self._there, reverse=True)

    def _targets(
        self,
        state: TrainState,
        found: folder.StepFolder,
        strict: bool,
        parts: list[str] | None,
        mapping: Mapped | None,
    ) -> Targets:
        targets = targets_of(state, _manifest(found), self._coordination.world, parts, mapping)
        if strict and (targets.missing or targets.unexpected):
            raise StateError(
                f"step {found.step} and the state differ: missing in the checkpoint: "
                f"{_some(targets.missing)}; not in the state: {_some(targets.unexpected)}. Load with "
                "strict=False, parts= or mapping="
            )
        return targets

    def _key(self, what: str) -> str:
        self._round += 1
        return f"load/{self._number}/{self._round}/{what}"


def _manifest(found: folder.StepFolder) -> Any:
    if found.manifest is None:
        raise DamagedError(f"{found.path}: {'; '.join(found.faults)}")
    return found.manifest


def _info(
    step: int,
    path: Path,
    count: int,
    begun: float,
    targets: Targets,
    skipped: list[tuple[int, str]],
    fetched: int,
) -> LoadInfo:
    seconds = time.perf_counter() - begun
    missing, unexpected = tuple(targets.missing), tuple(targets.unexpected)
    return LoadInfo(step, str(path), count, seconds, missing, unexpected, tuple(skipped), fetched)


def _nothing(root: Path, skipped: list[tuple[int, str]]) -> str:
    if not skipped:
        return f"no complete step in {root}: begin from the first step, or give the folder of the run"
    reasons = "; ".join(f"step {step}: {why}" for step, why in skipped)
    return (
        f"no step in {root} can be read: {reasons}. `python -m pccl_py ckpt verify` names all that is damaged"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "nothing"
