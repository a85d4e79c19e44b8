"""A peer of the family is killed in each phase of a window: the others lose none, hold the same bits, and the
values are those of a few lines of numpy with the members that each window says it had."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest

from pccl_py import Master
from tests.conftest import Spawn

from . import trapped
from .diloco_peer import PULL, H, start, target
from .test_diloco import Run

MODULE = "tests.integration.family_peer"
SIZE, WINDOWS, DEATH = 20_000, 9, 4
Array = np.ndarray[Any, Any]
Members = dict[int, set[str]]
HALF = SIZE // 2


def trained(begin: Array, name: str, steps: int = H) -> Array:
    aim = target(name, SIZE)
    return np.asarray(aim + (begin - aim) * (1 - PULL) ** steps)


class Nesterov:
    def __init__(self, lr: float) -> None:
        self.lr = lr
        self.m: Any = 0.0

    def __call__(self, theta: Array, g: Array) -> Array:
        self.m = 0.9 * self.m + g
        return np.asarray(theta - self.lr * (g + 0.9 * self.m))


def synchronous(members: Members) -> dict[int, Array]:
    states, step = {0: start(SIZE)}, Nesterov(0.7)
    for number in sorted(members):
        begin = states[number - 1]
        mean = np.mean([begin - trained(begin, name) for name in members[number]], axis=0)
        states[number] = step(begin, mean)
    return states


def delayed(members: Members) -> dict[int, Array]:
    states = {0: start(SIZE)}
    for number in sorted(members):
        begin = states[max(0, number - 2)]
        mean = np.mean([begin - trained(begin, name) for name in members[number]], axis=0)
        states[number] = states[number - 1] - 0.7 * mean
    return states


def streaming(members: Members) -> dict[int, Array]:
    """Two fragments, the halves: one leaves after each second step, and is applied a step later, half."""
    halves = [slice(0, HALF), slice(HALF, SIZE)]
    theta, local = start(SIZE), {name: start(SIZE) for name in members[1]}
    steps, states = [Nesterov(0.4), Nesterov(0.4)], {0: start(SIZE)}
    for number in sorted(members):
        part = halves[(number - 1) % 2]
        for name in local:
            local[name] = trained(local[name], name, 2 if number == 1 else 1)
        mean = np.mean([theta[part] - local[name][part] for name in members[number]], axis=0)
        theta = theta.copy()
        for name in local:
            local[name] = trained(local[name], name, 1)
        theta[part] = steps[(number - 1) % 2](theta[part], mean)
        for name in local:
            local[name][part] = (local[name][part] + theta[part]) / 2
        states[number] = theta
    return states


LITERAL = {
    "diloco": (synchronous, 1e-4),
    "int8": (synchronous, 0.05),
    "int4": (synchronous, 1.0),
    "async": (delayed, 1e-4),
    "streaming": (streaming, 1e-4),
    "streaming int4": (streaming, 0.3),
}
COMMITTED = {"commit", "outer", "model"}
TRAPPED = {"quantize", "reduce"}  # within a reduction, for sure
PHASES = [
    ("diloco", "commit"),
    ("int8", "quantize"),
    ("async", "overlap"),
    ("streaming int4", "outer"),
]
AT_NIGHT = [
    ("diloco", "reduce"),
    ("int8", "counts"),
    ("diloco", "outer"),
    ("diloco", "model"),
    ("int8", "reduce"),
    ("int8", "commit"),
    ("int8", "outer"),
    ("async", "outer"),
    ("streaming", "overlap"),
    ("streaming int4", "quantize"),
]


@pytest.mark.parametrize(
    ("kind", "phase"), [*PHASES, *(pytest.param(*phase, marks=pytest.mark.nightly) for phase in AT_NIGHT)]
)
def test_killed_in_each_phase(spawn: Spawn, master: Master, kind: str, phase: str) -> None:
    run = Run(spawn, master.address, MODULE)
    common = ("--size", str(SIZE), "--windows", str(WINDOWS), "--founders", "3", "--pace", "0.01")
    for name in "ABC":
        dying = ("--die-in", phase, "--die-behind", str(DEATH - 1)) if name == "C" else ()
        run.start(name, kind, *common, *dying)
    run.finish(killed={"C"}, by=trapped.SIGNAL if phase in TRAPPED else signal.SIGKILL)

    for name in "AB":
        assert [e["number"] for e in run.of(name, "window")] == list(range(1, WINDOWS + 1)), "one was lost"
    assert all(len(found) == 1 for found in run.digests().values()), run.digests()
    assert run.of("A", "end")[0]["digest"] == run.of("B", "end")[0]["digest"]
    members = run.contributors()
    last = max(number for number, who in members.items() if "C" in who)
    assert all(who == ({"A", "B", "C"} if number <= last else {"A", "B"}) for number, who in members.items())
    if phase in COMMITTED:
        assert last >= DEATH, "what was committed with C counts"
    elif phase in TRAPPED:
        assert last == DEATH - 1, "it died before it held the result"
        assert max(e["attempts"] for e in run.of("A", "window")) > 1
    elif phase in ("counts", "overlap"):
        assert DEATH - 1 <= last <= DEATH
    literal, tolerance = LITERAL[kind]
    states = literal(members)
    for event in run.of("A", "window"):
        assert event["weight"] == len(members[event["number"]])
        wanted = states[event["number"]]
        sample = np.concatenate([wanted[:25], wanted[HALF : HALF + 25]])
        np.testing.assert_allclose(event["theta"], sample, atol=tolerance, err_msg=str(event["number"]))


@pytest.mark.parametrize(
    ("kind", "late"),
    [
        ("int8", ("--interrupt-late",)),
        pytest.param("int8", (), marks=pytest.mark.nightly),
        pytest.param("streaming int4", (), marks=pytest.mark.nightly),
        pytest.param("diloco", ("--interrupt-late",), marks=pytest.mark.nightly),
    ],
)
def test_interrupted_in_a_reduction(spawn: Spawn, master: Master, kind: str, late: tuple[str, ...]) -> None:
    """Ctrl-C between counts and delta, or just behind the commit, and the peer goes on: all repeat what is
    left, and no window is lost."""
    run = Run(spawn, master.address, MODULE)
    common = ("--size", str(SIZE), "--windows", str(WINDOWS), "--founders", "3", "--pace", "0.01")
    for name in "ABC":
        run.start(name, kind, *common, *(("--interrupt-behind", "3", *late) if name == "C" else ()))
    run.finish(killed=set())
    assert run.of("C", "interrupted")
    assert all(len(found) == 1 for found in run.digests().values()), run.digests()
    members = run.contributors()
    assert all(who == {"A", "B", "C"} for who in members.values())
    check_values(run, kind, "B")


def test_who_gives_its_inner_state_dies(spawn: Spawn, master: Master) -> None:
    """The newcomer begins with zeros, and the others with it do what they would have done."""
    run = Run(spawn, master.address, MODULE)
    common = ("--size", str(SIZE), "--windows", "14")
    for name in "ABC":
        run.start(name, "copy", *common, "--founders", "3", "--pace", "0.02", "--die-in", "send")
    run.start("J", "copy", *common, "--pace", "0.02", "--wait")
    run.until("ready", "J")
    run.until("window", "A", number=3)
    run.go("J")
    dead = {name for name, process in run.processes.items() if process.wait(60) != 0}
    run.finish(killed=dead)
    assert len(dead) == 1 and dead < set("ABC")
    check_values(run, "diloco", sorted({"A", "B", "C"} - dead)[0])
    assert any("did not get from peer" in e["text"] for e in run.of("J", "text"))


@pytest.mark.parametrize("dies", [False, True])
def test_who_leaves_politely_gives_what_it_held_back(spawn: Spawn, master: Master, dies: bool) -> None:
    run = Run(spawn, master.address, MODULE)
    common = ("--size", str(SIZE), "--windows", str(WINDOWS), "--founders", "3", "--pace", "0.01")
    for name in "ABC":
        leaving = ("--leave-behind", "3", *(("--die-in", "send") if dies else ()))
        run.start(name, "int4", *common, *(leaving if name == "C" else ()))
    run.finish(killed={"C"} if dies else set())
    check_values(run, "int4", "A")
    lost = [e for name in "AB" for e in run.of(name, "text") if "did not get" in e["text"]]
    assert len(lost) == dies
    assert run.contributors()[4] == {"A", "B", "C"} and run.contributors()[5] == {"A", "B"}


def check_values(run: Run, kind: str, name: str) -> None:
    assert all(len(found) == 1 for found in run.digests().values()), run.digests()
    literal, tolerance = LITERAL[kind]
    states = literal(run.contributors())
    for event in run.of(name, "window"):
        sample = np.concatenate([states[event["number"]][at : at + 25] for at in (0, HALF)])
        np.testing.assert_allclose(event["theta"], sample, atol=tolerance, err_msg=str(event["number"]))
