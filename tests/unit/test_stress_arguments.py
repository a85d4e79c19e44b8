"""The command line of `python -m stress`: numbers within bounds, and a run that did nothing is no success."""

from __future__ import annotations

import pytest

from stress import __main__ as command
from stress.report import Report


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("churn --islands foo", "--islands: 'foo': it is RxC, like 3x2"),
        ("churn --islands 3x", "--islands: '3x'"),
        ("churn --islands 3x0", "--islands: '3x0'"),
        ("churn --islands 1x2", "'1x2': it has 2 to 15 islands"),
        ("churn --peers -1", "--peers: '-1': it is a whole number from 2 to 15"),
        ("churn --peers 0", "--peers: '0'"),
        ("churn --kills -1", "--kills: '-1'"),
        ("churn --groups 0", "--groups: '0'"),
        ("churn --in-flight 0", "--in-flight: '0'"),
        ("churn --seconds 0", "--seconds: '0': it is a number above 0"),
        ("churn --seconds nan", "--seconds: 'nan'"),
        ("churn --hang-seconds -2", "--hang-seconds: '-2'"),
        ("churn --elements 0-5", "--elements: '0-5': it is MIN-MAX"),
        ("churn --elements 9-5", "--elements: '9-5'"),
        ("recovery --kills 0", "--kills: '0': it is a whole number of at least 1"),
        ("recovery --peers 1", "--peers: '1': it is a whole number from 2 to 16"),
        ("recovery --bytes 3", "'3': sizes are multiples of 4 bytes"),
        ("recovery --forked-workers -1", "--forked-workers: '-1'"),
        ("pause --rounds 0", "--rounds: '0'"),
        ("run flood", "argument SCENARIO: invalid choice: 'flood'"),
        ("run churn --minutes 0", "--minutes: '0': it is a number above 0"),
        ("run churn --peers 2", "--peers: '2': it is a whole number from 3 to 8"),
        ("pause --bytes much", "'much' is no size"),
    ],
)
def test_numbers_of_arguments(arguments: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments.split())
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_arguments_arrive() -> None:
    args = command.parser(None).parse_args(
        "churn --islands 3X2 --elements 5-70 --kills 0 --seconds 1.5".split()
    )
    plan = command.churn_plan(args)
    assert (plan.peers, plan.ranks, plan.kills, plan.seconds) == (6, 2, 0, 1.5)
    assert (plan.limits.elements_min, plan.limits.elements_max) == (5, 70)
    assert command.churn_plan(command.parser(None).parse_args(["churn"])).limits.elements_max == 262144


@pytest.mark.parametrize(("operations", "status", "text"), [(0, 1, "NOTHING WAS DONE"), (1, 0, "no fault")])
def test_a_run_without_operations_is_no_success(
    operations: int,
    status: int,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(args: object, line: str) -> Report:
        return Report("churn", 1, line, 4, operations=operations)

    monkeypatch.setattr(command, "run", run)
    assert command.main(["churn"]) == status
    assert text in capsys.readouterr().out


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["list"]) == 0
    text = capsys.readouterr().out
    for (
        name
    ) in "churn stop partition slow_link loss master_kill disk_full clock_jump join_storm everything".split():
        assert f"\n{name}" in text and name in command.SCENARIOS


@pytest.mark.parametrize(
    "error", [command.NoEmulator("root"), command.NoDisk("root"), command.clock.NoClocks("g++")]
)
def test_a_machine_that_lacks_something_is_no_fault(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object, line: str) -> Report:
        raise error

    monkeypatch.setattr(command, "run", run)
    assert command.main(["run", "partition"]) == 77
    assert "missing: " in capsys.readouterr().err
