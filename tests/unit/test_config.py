"""Knobs: defaults, environment, arguments, bounds, and what the core gets of them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from pccl_py import Config, UsageError, _core
from pccl_py.cli import main
from pccl_py.config import settings


def test_defaults_are_the_core_s() -> None:
    core, config = _core.Timing(), Config()
    timing = [item.name for item in fields(Config) if item.metadata["timing"]]
    assert "heartbeat_ms" in timing
    assert {name: getattr(core, name) for name in timing} == {name: getattr(config, name) for name in timing}
    assert (config.heartbeat_ms, config.heartbeats_missed_max) == (500, 4)


def test_every_timing_of_the_core_is_a_knob() -> None:
    core = {name for name in dir(_core.Timing) if not name.startswith("_")}
    assert core == {item.name for item in fields(Config) if item.metadata["timing"]}


def test_every_knob_is_documented_and_bounded() -> None:
    for item in fields(Config):
        assert item.metadata["env"] == f"PCCL_{item.name.upper()}"
        assert item.metadata["help"].endswith(".")
        if item.type != "str":
            assert item.metadata["at_most"] < float("inf")


def test_arguments_win_over_the_environment_over_defaults() -> None:
    environ = {"PCCL_HEARTBEAT_MS": "100", "PCCL_GRACE_MS": " 70 ", "PCCL_DEADLINE_K": "2"}
    environ["PCCL_REDIAL_MS"] = ""
    config = Config.load(environ, heartbeat_ms=200, settle_ms=None)
    assert (config.heartbeat_ms, config.grace_ms, config.deadline_k) == (200, 70, 2.0)
    assert (config.settle_ms, config.redial_ms) == (20, 2000)
    origins = {setting.name: setting.origin for setting in settings(environ, heartbeat_ms=200)}
    assert origins["heartbeat_ms"] == "argument"
    assert origins["grace_ms"] == "PCCL_GRACE_MS"
    assert origins["redial_ms"] == "default"


def test_apply_reaches_the_core() -> None:
    timing = Config(heartbeat_ms=77, deadline_k=1.5, heartbeats_missed_max=9).apply(_core.Timing())
    assert (timing.heartbeat_ms, timing.deadline_k, timing.heartbeats_missed_max) == (77, 1.5, 9)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({"PCCL_HEARTBEAT_MS": "soon"}, "PCCL_HEARTBEAT_MS is 'soon'; it takes a whole number"),
        ({"PCCL_HEARTBEAT_MS": "1.5"}, "it takes a whole number"),
        ({"PCCL_HEARTBEAT_MS": "49"}, "PCCL_HEARTBEAT_MS is 49; it lies between 50 and 8.64e"),
        ({"PCCL_DEADLINE_K": "nan"}, "PCCL_DEADLINE_K is nan"),
        ({"PCCL_DEADLINE_K": "x"}, "it takes a number"),
    ],
)
def test_wrong_environment(environ: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Config.load(environ)


@pytest.mark.parametrize(
    "arguments",
    [
        {"heartbeat_ms": 1},
        {"heartbeat_ms": True},
        {"heartbeat_ms": 1.0},
        {"deadline_k": "2"},
        {"congestion_control": 3},
    ],
)
def test_wrong_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(arguments))):
        Config(**arguments)
    with pytest.raises(UsageError, match=next(iter(arguments))):
        Config.load({}, **arguments)


def test_unknown_setting() -> None:
    with pytest.raises(UsageError, match="no such setting: heartbeet_ms"):
        Config.load({}, heartbeet_ms=3)


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Config().heartbeat_ms = 3  # type: ignore[misc]


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PCCL_HEARTBEAT_MS", "123")
    monkeypatch.setenv("PCCL_HARTBEAT_MS", "9")
    assert main(["config"]) == 0
    text = capsys.readouterr().out
    row = next(line for line in text.splitlines() if line.startswith("heartbeat_ms"))
    assert row.split()[:3] == ["heartbeat_ms", "123", "PCCL_HEARTBEAT_MS"]
    assert "not a setting: PCCL_HARTBEAT_MS" in text
    assert main(["config", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["name"]: row["value"] for row in rows}["heartbeat_ms"] == 123
    assert len(rows) == len(fields(Config))


def test_command_with_a_wrong_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PCCL_HEARTBEAT_MS", "x")
    assert main(["config"]) == 2
    assert "PCCL_HEARTBEAT_MS" in capsys.readouterr().err


def test_commands_are_imported_when_named() -> None:
    source = """
import sys
from pccl_py.cli import main
main(["config"])
assert "pccl_py.cli.config" in sys.modules
assert not {"pccl_py.cli.bench", "pccl_py.cli.demo", "pccl_py.cli.master"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", source], check=True, timeout=60, stdout=subprocess.DEVNULL)
