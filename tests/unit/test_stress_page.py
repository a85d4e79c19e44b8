"""Reports of stress, and what they are made of: leaks, promises, times of starvation, pages."""

from __future__ import annotations

import mmap
import os
import re
import xml.etree.ElementTree as ET
from contextlib import ExitStack
from pathlib import Path

import pytest

from stress.history import Event, History
from stress.page import page
from stress.promises import Promises
from stress.report import FAULTS, Report
from stress.resources import MIB, Life, Sample, sample
from stress.starvation import EXCUSED_TIMES, Patience, Starvation, waited_s
from stress.timetable import Timetable


def life(values: list[int], **fixed: int) -> Life:
    """Descriptors, one sample per second."""
    rest = {"memory": 100 * MIB, "shared_memory": 0, "threads": 9} | fixed
    return Life("peer", [Sample(float(t), descriptors=n, **rest) for t, n in enumerate(values)])


@pytest.mark.parametrize(
    ("values", "leaks"),
    [
        (list(range(20, 80)), True),  # one per second
        ([20 + t // 2 for t in range(60)], True),
        ([20] * 60, False),
        ([20] * 30 + [60] * 30, False),  # once, and no more
        ([20 + 60 * (t % 7 == 0) for t in range(60)], False),  # given back
        (list(range(5, 65)) + [5], False),  # nearly all of it, in the end
        (list(range(20, 40)), False),  # too short a life
    ],
)
def test_leaks(values: list[int], leaks: bool) -> None:
    assert bool(life(values).leaks(20.0)) == leaks


def test_what_a_process_holds() -> None:
    before = sample(os.getpid(), 0.0)
    with ExitStack() as held:
        for _ in range(5):
            held.enter_context(open(os.devnull))
        # Not of the heap, which may have as much that was freed.
        ballast = held.enter_context(mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE))
        ballast.write(b"x" * len(ballast))
        after = sample(os.getpid(), 1.0)
    assert before is not None and after is not None
    assert after.descriptors == before.descriptors + 5
    assert after.memory - before.memory > (64 << 20) // 2
    assert sample(1 << 22, 0.0) is None


def test_promises_wait_for_a_starved_machine() -> None:
    broken: list[str] = []
    starved = [0.0]
    promises = Promises(broken.append, starved=lambda since: starved[0])
    promises.make("it rains", 10.0, 2.0, lambda who, record: record["what"] == "rain")
    promises.check(11.9)
    starved[0] = 3.0
    promises.check(14.9)
    assert promises.open and not broken
    promises.check(15.1)
    assert broken == ["it rains within 2.0 s; it has been 5.1 s, 3.0 of them for a core"]
    starved[0] = 1e9  # there is an end to it
    promises.make("it hails", 10.0, 2.0, lambda who, record: False)
    promises.check(17.9)
    assert promises.open
    promises.check(18.1)
    assert len(broken) == 2 and not promises.open
    broken.pop()
    took: list[float] = []
    promises.make("it rains", 20.0, 2.0, lambda who, record: record["what"] == "rain", took_ms=took)
    promises.on_record(None, {"what": "rain", "t": 19.0})  # type: ignore[arg-type]  # said before
    promises.on_record(None, {"what": "rain", "t": 20.5})  # type: ignore[arg-type]
    assert took == [500.0] and not promises.open and len(broken) == 1
    promises.make("it snows", 30.0, 2.0, lambda who, record: False, void=lambda: True)
    promises.check(99.0)
    assert not promises.open and len(broken) == 1


def test_starvation_is_what_the_kernel_counts() -> None:
    starvation = Starvation()
    starvation.look([os.getpid()], 0.0)
    assert starvation.since(0.0) == 0.0
    assert 0 <= waited_s(os.getpid()) < 1e4 and waited_s(1 << 22) == 0.0


def test_starvation_is_remembered_for_as_long_as_it_excuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that had no core for 85 s had excuses for 60 of them only."""
    monkeypatch.setattr("stress.starvation.waited_s", lambda pid: waited[0])
    waited = [0.0]
    starvation = Starvation(kept_s=200.0)
    for second in range(160):
        waited[0] = float(second)
        starvation.look([1], float(second))
    assert starvation.since(9.0) == 150.0


def test_threads_that_wait_at_the_same_time_excuse_no_more_than_that_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was promised within 20 s was excused for 60, in which the run ended as a hang."""
    waited = [0.0]
    monkeypatch.setattr("stress.starvation.waited_s", lambda pid: waited[0])
    starvation = Starvation()
    starvation.look([1], 0.0)
    waited[0] = 4 * 10.0  # four threads
    starvation.look([1], 12.0)
    assert starvation.since(0.0) == 12.0


def test_a_wait_is_over_later_where_others_have_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A soak at nice 10 beside compilers was called a hang after 40 s, of which it had cores for few."""
    waited = {1: 5.0, 2: 7.0}
    monkeypatch.setattr("stress.starvation.waited_s", lambda pid: waited[pid])
    patience = Patience(40.0, lambda: [1, 2])
    patience.begin(100.0)
    assert not patience.is_over(139.0) and patience.is_over(141.0)
    waited[2] = 37.0
    assert not patience.is_over(169.0) and patience.is_over(171.0)
    waited[2] = 1e6
    assert not patience.is_over(140.0 + EXCUSED_TIMES * 40 - 1) and patience.is_over(
        141.0 + EXCUSED_TIMES * 40
    )
    patience.begin(400.0)
    assert patience.is_over(441.0), "what they waited before is no excuse now"


def test_a_timetable_keeps_order() -> None:
    done: list[str] = []
    timetable = Timetable()
    timetable.at(2.0, lambda: done.append("b"))
    timetable.at(1.0, lambda: timetable.at(1.0, lambda: done.append("a2")))
    timetable.at(1.0, lambda: done.append("a1"))
    timetable.at(3.0, lambda: done.append("c"))
    assert timetable.due() == 1.0
    timetable.act(2.5)
    assert done == ["a1", "a2", "b"] and timetable.due() == 3.0


def report() -> Report:
    history = History(100.0, 60.0)
    for t in range(60):
        history.result(t % 3, 100.0 + t)
    history.members += [(100.0, 3), (120.0, 2), (125.0, 3)]
    history.events.append(Event(120.0, "kills", "SIGKILL of <peer> & co"))
    history.resources.lives[7] = life(list(range(30, 60)))
    summary = {"median": 1.0, "p99": 2.0, "max": 3.0, "count": 4}
    return Report(
        "churn", 7, "python -m stress", 3, 60.0, operations=60, recovery_ms=summary, history=history
    )


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_a_page_tells_faults_and_needs_nothing_else(fault: str | None) -> None:
    found = report()
    if fault is not None:
        setattr(found, fault, 1)
        found.note("<script>alert(1)</script>")
    text = page(found)
    assert found.faultless == (fault is None)
    assert ('class="verdict good"' in text) == (fault is None)
    assert "<script" not in text and not re.search(r'(src|href)="', text)
    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ET.fromstring(drawing)
    assert text.count("<svg") == 7
    assert "SIGKILL of &lt;peer&gt; &amp; co" in text


def test_a_page_is_written_and_json_has_no_history(tmp_path: Path) -> None:
    found = report()
    assert '"history"' not in found.as_json() and found.history is not None
    assert "broken_promises        0" in found.as_text()
