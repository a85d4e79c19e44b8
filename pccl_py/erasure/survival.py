"""How safe a code is, and which one to take. Hosts fail independently; common causes break these numbers.

With host failure probability p in the window from a snapshot to the time when redundancy is whole again, a
group of n keepers with m parities keeps its state with probability
sum over i <= m of C(n, i) p^i (1 - p)^(n - i). Replication on r hosts is the case n = r, m = r - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import UsageError
from .memory import BLOCKS_MAX


@dataclass(frozen=True)
class ChosenCode:
    """k data blocks and m parities. overhead: m / k, extra memory for one of own state; loss: the probability
    that any group of the run loses its state in the window; groups: how many there are."""

    k: int
    m: int
    groups: int
    overhead: float
    loss: float


def survival_probability(n: int, m: int, p: float, *, groups: int = 1) -> float:
    """That at most m of n hosts fail, each with probability p; in all of so many groups.

    Raises UsageError for n < 1, m < 0, groups < 1 or p outside 0 to 1.
    """
    _check(n, m, p, groups)
    return math.exp(groups * math.log1p(-lost)) if (lost := _tail(n, m, p)) < 1 else 0.0


def loss_probability(n: int, m: int, p: float, *, groups: int = 1) -> float:
    """1 - survival_probability, also where that is too close to 1 for a float to tell."""
    _check(n, m, p, groups)
    lost = _tail(n, m, p)
    return -math.expm1(groups * math.log1p(-lost)) if lost < 1 else 1.0


def choose_code(memory: float, p: float, domains: int, *, loss: float = 1e-6) -> ChosenCode:
    """The code for a run of so many failure domains (hosts), one keeper in each.

    memory    what parities may take, as a part of the state: 0.34 is a third more
    p         probability that a host fails while a snapshot has to hold
    loss      the run's acceptable probability of losing state. The fewest parities that reach it are taken,
              since each costs network and memory, and of those the smallest groups, since a repair reads k
              blocks; where nothing reaches it, the safest code

    Raises UsageError where no code fits the memory.
    """
    _check(2, 1, p, 1)
    if not memory > 0 or not math.isfinite(memory):
        raise UsageError(f"memory={memory!r}: it is the part of the state that parities may take, above 0")
    if domains < 2:
        raise UsageError(
            f"domains={domains}: with one host alone nothing survives it; checkpoint to a remote"
        )
    blocks_max = min(domains, BLOCKS_MAX)
    safest: ChosenCode | None = None
    for m in range(1, blocks_max):
        for k in range(max(1, math.ceil(m / memory * (1 - 1e-12))), blocks_max - m + 1):
            code = _code(k, m, p, domains)
            if code.loss <= loss:
                return code
            if safest is None or code.loss < safest.loss:
                safest = code
    if safest is None:
        least = 1 / (blocks_max - 1)
        raise UsageError(f"memory={memory:g} is too little: one parity for {domains} hosts takes {least:.3g}")
    return safest


def _code(k: int, m: int, p: float, domains: int) -> ChosenCode:
    """With groups as code_groups makes them: some have one keeper more, or a few."""
    groups = max(domains // (k + m), -(-domains // BLOCKS_MAX))
    size, larger = divmod(domains, groups)
    whole = groups - larger
    survived = whole * math.log1p(-min(_tail(size, m, p), 1 - 1e-16))
    if larger:
        survived += larger * math.log1p(-min(_tail(size + 1, m, p), 1 - 1e-16))
    return ChosenCode(k, m, groups, m / k, -math.expm1(survived))


def _tail(n: int, m: int, p: float) -> float:
    """That more than m of n fail."""
    if m >= n or p == 0:
        return 0.0
    if p == 1:
        return 1.0
    term = math.comb(n, m + 1) * p ** (m + 1) * (1 - p) ** (n - m - 1)
    terms, odds = [term], p / (1 - p)
    for i in range(m + 1, n):
        factor = (n - i) / (i + 1) * odds
        term *= factor
        if factor < 0.5 and term < 1e-20 * terms[0]:  # what is left adds no bit
            break
        terms.append(term)
    return min(1.0, math.fsum(terms))


def _check(n: int, m: int, p: float, groups: int) -> None:
    if n < 1 or m < 0 or groups < 1:
        raise UsageError(
            f"n={n}, m={m}, groups={groups}: hosts and groups are at least 1, parities at least 0"
        )
    if not 0 <= p <= 1:
        raise UsageError(f"p={p!r}: a probability is between 0 and 1")
