"""Loading: the newest step that all ranks can read, into whatever layout they have now."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ..errors import DamagedError, NoCheckpointError, StateError
from ..state.targets import Mapped, Targets, targets_of
from ..state.train_state import TrainState
from . import folder, native
from .coordination import Coordination
from .local_level import LocalLevel
from .read import read_tensors
from .stats import LoadInfo

_SHOWN = 8


class Loader:
    """One load() of one rank, its `number`-th; all ranks do the same, step by step."""

    def __init__(
        self,
        level: LocalLevel,
        disk: native.Disk,
        coordination: Coordination,
        number: int,
        timeout_s: float,
    ) -> None:
        self._level, self._disk = level, disk
        self._coordination, self._timeout_s = coordination, timeout_s
        self._number, self._round = number, 0

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
        for candidate in self._candidates(step):
            fault: Exception | None = None
            targets, count = None, 0
            try:
                found = self._level.step(candidate)
                targets = self._targets(state, found, strict, parts, mapping)
                count = read_tensors(self._disk, found.path, _manifest(found), targets.boxes)
            except (DamagedError, NoCheckpointError) as error:
                fault = error
            if (why := self._agreed(fault)) is None and targets is not None:
                targets.take()
                return _info(candidate, found.path, count, begun, targets, skipped)
            if step != "latest":
                raise fault or DamagedError(f"step {candidate}: another rank cannot read it: {why}")
            skipped.append((candidate, str(why)))
        raise NoCheckpointError(_nothing(self._level.root, skipped))

    def _candidates(self, step: int | str) -> list[int]:
        """Newest first; on several ranks those that all of them have."""
        if isinstance(step, int) and not isinstance(step, bool):
            return [step]
        if step != "latest":
            raise StateError(f"step {step!r}: a number, or 'latest'")
        own = [str(found.step) for found in folder.scan(self._level.root).steps]
        given = self._coordination.exchange(self._key("steps"), ",".join(own).encode(), self._timeout_s)
        common = set.intersection(*(set(words.decode().split(",")) - {""} for words in given))
        return sorted(map(int, common), reverse=True)

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

    def _agreed(self, fault: Exception | None) -> str | None:
        """What stops any rank from reading this step; None: nothing."""
        words = b"" if fault is None else str(fault).encode()
        given = self._coordination.exchange(self._key("read"), words, self._timeout_s)
        return next((text.decode() for text in given if text), None)

    def _key(self, what: str) -> str:
        self._round += 1
        return f"load/{self._number}/{self._round}/{what}"


def _manifest(found: folder.StepFolder) -> Any:
    if found.manifest is None:
        raise DamagedError(f"{found.path}: {'; '.join(found.faults)}")
    return found.manifest


def _info(
    step: int, path: Path, count: int, begun: float, targets: Targets, skipped: list[tuple[int, str]]
) -> LoadInfo:
    seconds = time.perf_counter() - begun
    return LoadInfo(
        step, str(path), count, seconds, tuple(targets.missing), tuple(targets.unexpected), tuple(skipped)
    )


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
