"""The order of stages that lets the neighbours of both ends learn what the ends do: CheckFree+."""

from __future__ import annotations

from ..errors import UsageError


def swapped_order(stages: int, microbatch: int) -> list[int]:
    """In which order a microbatch goes through the stages: 0 to stages - 1 for even ones; for odd ones the
    first two and the last two change places, embedding and head excepted.

        for stage in swapped_order(6, 1): ...    # 1, 0, 2, 3, 5, 4

    Trained so, neighbour_copy() can stand in for an end; convergence is a little slower, so take it where
    ends are lost indeed. Raises UsageError below four stages, where both pairs would share one.

    Source: arXiv 2506.15461v2, section 4.3.
    """
    if stages < 4:
        raise UsageError(f"stages={stages}: swapping both ends takes at least 4")
    order = list(range(stages))
    return order if microbatch % 2 == 0 else [1, 0, *order[2:-2], stages - 1, stages - 2]
