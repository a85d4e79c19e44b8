"""Taking up a run where it was left: from the newest source that has it, part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..errors import NoCheckpointError
from .train_state import TrainState


@dataclass(frozen=True, slots=True)
class PartSource:
    """Where one part of the state came from. `step`: of that source; None: it is as the program made it."""

    source: str
    step: int | None
    why: str


class Source(Protocol):
    """A Checkpointer, Snapshots, or anything else with complete steps."""

    def load(self, state: Any, step: int | str = "latest", *, strict: bool = True) -> Any: ...


def resume(state: TrainState, *sources: Source | None) -> dict[str, PartSource]:
    """Fills the state from the first source that has a step it can read; by part, what came from where.

    On several ranks all call it, and come to one step. What a source before could not give, `why` says. What
    snapshots hold beyond the step that is taken up is given up: it is of a past that will not be. A part that
    the source does not have stays as the program made it, and is told so. Raises StateError where what is
    saved does not fit the state, and what a source raises for damage beyond its older steps.
    """
    reasons: list[str] = []
    for source in sources:
        if source is None:
            continue
        try:
            info = source.load(state, strict=False)
        except NoCheckpointError as error:
            reasons.append(str(error))
            continue
        for other in sources:
            if (forget := getattr(other, "forget", None)) is not None:
                forget(info.step)
        return _told(state, info, getattr(source, "name", "checkpoint"), reasons)
    why = "; ".join(reasons) or "no source was given"
    return {name: PartSource("program", None, why) for name in state.parts}


def _told(state: TrainState, info: Any, source: str, before: Sequence[str]) -> dict[str, PartSource]:
    instead = "".join(f"{reason}; instead " for reason in before)
    passed = "".join(f"; step {step} was passed over: {why}" for step, why in info.skipped)
    told: dict[str, PartSource] = {}
    for name in state.parts:
        absent = _of_part(name, info.missing, state)
        if absent and name in {word.rpartition("/")[2] for word in absent}:
            told[name] = PartSource("program", None, f"step {info.step} does not have it")
        else:
            why = f"{instead}the newest complete step in {info.folder.rstrip(',')}{passed}"
            if absent:
                why += f"; without {', '.join(absent[:4])}{' ...' if len(absent) > 4 else ''}"
            told[name] = PartSource(source, info.step, why)
    return told


def _of_part(name: str, missing: Sequence[str], state: TrainState) -> list[str]:
    """Missing names of this part; the part's own name, with its root, where all of it is missing."""
    depth = 1 if state.is_private(name) else 0
    return [word for word in missing if word.split("/")[depth : depth + 1] == [name]]
