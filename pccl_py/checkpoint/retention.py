"""Which steps stay."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UsageError


def keepers(steps: Iterable[int], keep: int | None = None, keep_every: int | None = None) -> set[int]:
    """Of complete steps, those that stay: the newest `keep` (None: all), each that `keep_every` divides, and
    in any case the newest.

    Raises UsageError for a number below 1.
    """
    if keep is not None and keep < 1:
        raise UsageError(f"keep={keep}: at least the newest step stays")
    if keep_every is not None and keep_every < 1:
        raise UsageError(f"keep_every={keep_every}: give a number of steps, or None")
    newest_first = sorted(set(steps), reverse=True)
    if keep is None:
        return set(newest_first)
    every = {step for step in newest_first if keep_every is not None and step % keep_every == 0}
    return every | set(newest_first[:keep])
