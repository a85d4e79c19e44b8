"""Survival by its closed form, a table and by playing it; the choice of a code; groups and stripes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pccl_py import UsageError
from pccl_py.erasure import Stripes, choose_code, code_groups, loss_probability, survival_probability


@pytest.mark.parametrize(("n", "m"), [(2, 1), (6, 2), (16, 4), (256, 8)])
@pytest.mark.parametrize("p", [0.0, 1e-3, 0.05, 0.5, 1.0])
def test_closed_form(n: int, m: int, p: float) -> None:
    expected = math.fsum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(m + 1))
    assert survival_probability(n, m, p) == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert survival_probability(n, m, p, groups=3) == pytest.approx(expected**3, rel=1e-9, abs=1e-15)


# 48 hosts; pairs are replicas on two of them.
@pytest.mark.parametrize(
    ("k", "m", "p", "expected"),
    [
        (7, 1, 1e-2, 1.60e-2),
        (6, 2, 1e-2, 3.24e-4),
        (12, 4, 1e-2, 1.20e-6),
        (4, 2, 5e-2, 1.77e-2),
        (1, 1, 1e-2, 2.40e-3),
        (4, 4, 1e-3, 3.36e-13),
    ],
)
def test_table_of_48_hosts(k: int, m: int, p: float, expected: float) -> None:
    groups = 48 // (k + m)
    # One less than 1 in its last digit is all that a float can tell: 16 groups of tiny losses need the other.
    assert loss_probability(k + m, m, p, groups=groups) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(("k", "m", "p", "groups"), [(4, 2, 0.05, 1), (6, 2, 0.1, 4), (3, 1, 0.02, 12)])
def test_monte_carlo_within_three_sigma(k: int, m: int, p: float, groups: int) -> None:
    """Hosts fail at random; state is lost where more than m blocks of a stripe are."""
    trials, n = 20_000, k + m
    failed = np.random.default_rng(7).random((trials, groups, n)) < p
    stripes = Stripes(n, m)
    holders = np.array([[stripes.slot_of(stripe, block) for block in range(n)] for stripe in range(n)])
    survived = (failed[:, :, holders].sum(-1) <= m).all((1, 2)).mean()
    expected = survival_probability(n, m, p, groups=groups)
    assert abs(survived - expected) <= 3 * math.sqrt(expected * (1 - expected) / trials)


def test_choice_within_memory() -> None:
    for memory in (0.2, 0.34, 0.5, 1.0, 2.0):
        for domains in (2, 3, 8, 48, 300):
            if memory < 1 / (domains - 1):
                continue
            code = choose_code(memory, 0.01, domains)
            assert code.k + code.m <= min(domains, 256)
            assert code.overhead == code.m / code.k <= memory + 1e-9
            sizes = [len(group) for group in code_groups(range(domains), code.k + code.m)]
            assert code.groups == len(sizes)
            kept = math.prod(survival_probability(size, code.m, 0.01) for size in sizes)
            assert code.loss == pytest.approx(1 - kept, rel=1e-6, abs=1e-13)


def test_choice_takes_what_suffices_or_the_safest() -> None:
    code = choose_code(1 / 3, 0.01, 48)
    assert code.loss <= 1e-6
    assert choose_code(1 / 3, 0.01, 48, loss=1e-3).m < code.m
    assert choose_code(0.5, 0.2, 6, loss=0.0) == choose_code(0.5, 0.2, 6, loss=1e-300)
    assert (choose_code(1.0, 0.01, 2).k, choose_code(1.0, 0.01, 2).m) == (1, 1)


def test_what_cannot_be_says_so() -> None:
    with pytest.raises(UsageError, match="one parity for 8 hosts takes 0.143"):
        choose_code(0.1, 0.01, 8)
    with pytest.raises(UsageError, match="nothing survives"):
        choose_code(1.0, 0.01, 1)
    for arguments in ((0, 1, 0.1), (3, -1, 0.1), (3, 1, 1.5), (3, 1, float("nan"))):
        with pytest.raises(UsageError):
            survival_probability(*arguments)
    for n, m in ((4, 0), (4, 4), (257, 1)):
        with pytest.raises(UsageError):
            Stripes(n, m)


def test_groups_across_domains() -> None:
    hosts = ["a", "a", "b", "b", "c", "c", "d", "d"]
    groups = code_groups(hosts, 4)
    assert sorted(sum(groups, [])) == list(range(8))
    assert [sorted(hosts[keeper] for keeper in group) for group in groups] == [["a", "b", "c", "d"]] * 2
    assert code_groups(["x"] * 3, 8) == [[0, 1, 2]]


def test_parities_take_turns() -> None:
    stripes = Stripes(6, 2)
    parities = [[stripes.slot_of(stripe, block) for block in (4, 5)] for stripe in range(6)]
    assert parities == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 0]]
    for slot in range(6):
        assert {stripes.block_of(stripes.stripe_of(slot, block), slot) for block in range(6)} == set(range(6))
