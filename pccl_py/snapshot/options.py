"""What Snapshots may be told about when and how they are taken."""

from __future__ import annotations

from typing import Literal

from ..errors import UsageError
from . import limits

OnBusy = Literal["wait", "skip"]


def check_options(
    every: int | None, on_busy: str, copy_threads: int, orphan_s: float, timeout_s: float
) -> None:
    """Raises UsageError."""
    if every is not None and (type(every) is not int or every < 1):
        raise UsageError(f"every={every!r}: a whole number, at least 1")
    if on_busy not in ("wait", "skip"):
        raise UsageError(f"on_busy={on_busy!r}: 'wait' or 'skip'")
    if not 1 <= copy_threads <= 4:
        raise UsageError(f"copy_threads={copy_threads!r}: 1 to 4")
    if not 0 <= orphan_s <= limits.ORPHAN_S_MAX:
        raise UsageError(f"orphan_s={orphan_s!r}: seconds, 30 days at most")
    if not timeout_s > 0:
        raise UsageError(f"timeout_s={timeout_s!r}: seconds, more than 0")
