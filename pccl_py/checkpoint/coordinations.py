"""From what a user says of the ranks that save together to how they hear of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..state.boxed import World
from .coordination import Alone, Coordination
from .store_coordination import of_process_group


def coordination_of(process_group: Any, path: Path, timeout_s: float) -> Coordination:
    """See Checkpointer. May wait for the other ranks."""
    if process_group == "alone":
        return Alone()
    if isinstance(process_group, tuple):
        return _of_folder(process_group, path, timeout_s)
    if isinstance(process_group, str):
        raise UsageError(f"process_group={process_group!r}: a group, (rank, world), a Communicator or 'alone'")
    if hasattr(process_group, "sync_shared_state"):
        from .communicator_coordination import CommunicatorCoordination

        return CommunicatorCoordination(process_group)
    return of_process_group(process_group)


def _of_folder(ranks: tuple[Any, ...], path: Path, timeout_s: float) -> Coordination:
    from .folder_coordination import FolderCoordination

    numbers = [number for number in ranks if type(number) is int]
    if len(ranks) != 2 or len(numbers) != 2 or not 0 <= numbers[0] < numbers[1]:
        raise UsageError(f"process_group={ranks!r}: (rank, world), whole numbers, 0 <= rank < world")
    world = World(*numbers)
    return Alone() if world.size == 1 else FolderCoordination(path, world, timeout_s)
