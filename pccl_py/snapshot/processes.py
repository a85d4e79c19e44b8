"""Whether a process of this host is on its way out: killed ones give back their memory first, which may take
a while, and close their sockets last."""

from __future__ import annotations

from pathlib import Path

_EXITING = 0x4  # PF_EXITING of the kernel
_FLAGS = 6  # of the fields behind the name


def is_exiting(pid: int) -> bool:
    """True also for one that is gone: none of its threads will run again."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        return all(_task_exits(task / "stat") for task in tasks.iterdir())
    except OSError:
        return True


def _task_exits(stat: Path) -> bool:
    try:
        words = stat.read_text().rpartition(")")[2].split()
        return words[0] in "ZX" or bool(int(words[_FLAGS]) & _EXITING)
    except FileNotFoundError:
        return True
    except (OSError, ValueError, IndexError):
        return False
