"""When a step of several reductions is one step: pure arithmetic on who contributed to which.

Each reduction commits by itself, so that it may overlap the backward pass. A peer that dies in between is in
some of the results and not in others. Views only shrink between two boundaries, so contributors of all parts
form a chain of subsets; the smallest one is what all can be brought to, as every peer keeps its inputs.
"""

from __future__ import annotations

from collections.abc import Sequence


def parts_to_repeat(contributors: Sequence[Sequence[int]]) -> list[int]:
    """Indices of the parts whose contributors are more than the fewest that any part has.

    contributors: of each part, as its commit told them: the same on all peers, and so is the answer. Empty:
    all parts are of the same peers, and the step counts.
    """
    if not contributors:
        return []
    fewest = min(contributors, key=len)
    return [index for index, ids in enumerate(contributors) if set(ids) != set(fewest)]


def scale_of(used: int, expected: int) -> float | None:
    """What the sum of gradients, each times samples / expected, is to be multiplied by: a mean over the
    samples that were used. None: no sample was, and nothing is to be applied."""
    return expected / used if used else None
