"""Loading: the newest step that all ranks can read, into whatever layout they have now."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, DamagedError, NoCheckpointError, StateError
from ..state.train_state import TrainState
from . import folder, native
from .coordination import Coordination
from .local_level import LocalLevel
from .read import read_tensors
from .remote_source import RemoteSource
from .stats import LoadInfo
from .targets import Fit, Targets, some

FETCHES = 10  # times the usual patience: one rank may fetch a whole step for all
T = TypeVar("T")
_HALF = "The state has values of a step that cannot be used: make it anew, it is not what it was."


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
        self._elsewhere = ""
        self._why = ""
        self._there: set[int] = set()  # steps at the remote
        self._filled: dict[int, str] = {}  # tensors of the state that a step has reached; by address, names
        self._half = False  # on any rank

    def load(self, state: TrainState, step: int | str, fit: Fit) -> LoadInfo:
        begun = time.perf_counter()
        skipped: list[tuple[int, str]] = []
        latest = step == "latest"

        def read() -> tuple[Path, Targets, int]:
            found = self._level.step(candidate)
            manifest = _manifest(found)
            targets = fit.targets(state, manifest, self._coordination.world, f"step {candidate}")
            begins = partial(self._filled.update, targets.live)
            count = read_tensors(self._disk, found.path, manifest, targets.boxes, begins)
            return found.path, targets, count

        for candidate in self._candidates(step):
            with self._level.holds.held(candidate):
                result, fault = _tried(read)
                fetched, remote = 0, self._remote_for(candidate, latest)
                why = self._agreed(fault, latest=latest or remote is not None)
                if why is not None and remote is not None:
                    fetched = self._fetched(remote, candidate, why, latest)
                    if fetched >= 0:
                        result, fault = _tried(read)
                        why = self._agreed(fault, latest=latest)
            if why is None and result is not None:
                path, targets, count = result
                self._expect_nothing_left(candidate, targets)
                targets.take()
                return _info(candidate, path, count, begun, targets, skipped, fetched)
            self._level.give_up(candidate)
            skipped.append((candidate, self._why or str(why)))
        text = _nothing(self._level.root, skipped, self._elsewhere)
        raise DamagedError(f"{text}. {_HALF}") if self._half else NoCheckpointError(text)

    def _expect_nothing_left(self, step: int, targets: Targets) -> None:
        """Of a newer step that was damaged and has tensors that this one does not have."""
        left = [name for address, name in self._filled.items() if address not in targets.live]
        if left:
            raise DamagedError(
                f"step {step} is whole and does not have {some(left)}, which a newer, damaged step has "
                f"filled. {_HALF} Then load step {step}"
            )

    def _remote_for(self, candidate: int, latest: bool) -> RemoteSource | None:
        """By what rank 0 saw there, or because the step was asked for."""
        self._why = ""
        return self._remote if not latest or candidate in self._there else None

    def _fetched(self, remote: RemoteSource, candidate: int, why: str, latest: bool) -> int:
        """Bytes that came from the remote; -1: the step is not there either, and an older one may do."""
        count, fault = _tried(partial(remote.fetch, candidate))
        if isinstance(fault, CheckpointError) and not isinstance(fault, DamagedError):
            fault = NoCheckpointError(str(fault))  # an older step may do, whatever kept this one away
        missing = self._agreed(fault, latest=True, times=FETCHES)
        if missing is None:
            return count or 0
        self._why = f"{why}; nor does it come from the remote: {missing}"
        if not latest:
            raise (DamagedError if isinstance(fault, DamagedError) else NoCheckpointError)(self._why)
        return -1

    def _candidates(self, step: int | str) -> list[int]:
        """Newest first; on several ranks those of which all have the same manifest."""
        if isinstance(step, int) and not isinstance(step, bool):
            return [step]
        if step != "latest":
            raise StateError(f"step {step!r}: a number, or 'latest'")
        said: dict[str, list[Any]] = {"here": list(self._level.held())}
        if self._remote is not None and self._coordination.world.rank == 0:
            said["there"] = self._remote.steps()
        given = self._coordination.exchange(self._key("steps"), json.dumps(said).encode(), self._timeout_s)
        told = [json.loads(words) for words in given]
        held = [set(words["here"]) for words in told]
        common = set.intersection(*held)
        self._elsewhere = _lacking(held, common)
        self._there = set(told[0].get("there", []))
        return sorted({int(word.partition(":")[0]) for word in common} | self._there, reverse=True)

    def _agreed(self, fault: Exception | None, *, latest: bool, times: int = 1) -> str | None:
        """What stops any rank from reading this step; None: nothing. Raises, on all ranks, what another step
        would not mend: damage only, where it is to be the latest one."""
        mends = isinstance(fault, DamagedError | NoCheckpointError)
        words: dict[str, Any] = {"half": bool(self._filled)}
        if fault is not None:
            words |= {"mends": mends, "kind": type(fault).__name__, "text": str(fault)}
        wait_s = self._timeout_s * times
        given = self._coordination.exchange(self._key("read"), json.dumps(words).encode(), wait_s)
        heard_of = [json.loads(text) for text in given]
        self._half = any(heard["half"] for heard in heard_of)
        said = {rank: heard for rank, heard in enumerate(heard_of) if "kind" in heard}
        if not said:
            return None
        if fault is not None and not (latest and mends):
            raise fault
        alone = self._coordination.world.size == 1
        texts = [heard["text"] if alone else f"rank {rank}: {heard['text']}" for rank, heard in said.items()]
        for heard, text in zip(said.values(), texts, strict=True):
            if not (latest and heard["mends"]):
                raise {"StateError": StateError, "NoCheckpointError": NoCheckpointError}.get(
                    heard["kind"], DamagedError if heard["mends"] else CheckpointError
                )(text)
        return "; ".join(texts)

    def _key(self, what: str) -> str:
        self._round += 1
        return f"load/{self._number}/{self._round}/{what}"


def _manifest(found: folder.StepFolder) -> Any:
    if found.manifest is None:
        raise DamagedError(f"{found.path}: {'; '.join(found.faults)}")
    return found.manifest


def _tried(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What it returns, or why not, whatever it is: the others wait to hear of it."""
    try:
        return action(), None
    except Exception as error:
        return None, error


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
    missing, unexpected = (*targets.missing, *targets.begun), tuple(targets.unexpected)
    return LoadInfo(step, str(path), count, seconds, missing, unexpected, tuple(skipped), fetched)


def _lacking(held: list[set[str]], common: set[str]) -> str:
    """Steps that some ranks have and others lack, in words."""
    said = []
    for word in sorted(set.union(*held) - common, reverse=True)[:3]:
        ranks = [str(rank) for rank, one in enumerate(held) if word not in one]
        said.append(
            f"step {word.partition(':')[0]} is not, or another one, in the folder of rank {', '.join(ranks)}"
        )
    return "; ".join(said)


def _nothing(root: Path, skipped: list[tuple[int, str]], elsewhere: str) -> str:
    if not skipped and elsewhere:
        return f"no step in {root} that all ranks have: {elsewhere}"
    if not skipped:
        return f"no complete step in {root}: begin from the first step, or give the folder of the run"
    reasons = "; ".join(f"step {step}: {why}" for step, why in skipped)
    return (
        f"no step in {root} can be read: {reasons}. `python -m pccl_py ckpt verify` names all that is damaged"
    )
