"""`python -m pccl_py bench`: each runs in a small size, values are right, the JSON has the promised shape.

No figure is compared with a time: a busy machine is no fault.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pccl_py.bench.units import bytes_text, parse_size, percentile, seconds_text
from pccl_py.cli import main
from pccl_py.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
MEASURES = {
    "seconds": float,
    "algbw": float,
    "busbw": float,
    "cpu_seconds": float,
    "transport": str,
    "congestion_control": str,
    "correct": bool,
}


def bench(*arguments: str, status: int = 0) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pccl_py", "bench", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check_measures(record: dict[str, Any]) -> None:
    for name, kind in MEASURES.items():
        assert type(record[name]) is kind, name
    assert record["correct"]
    assert record["seconds"] > 0
    assert record["congestion_control"]


def test_all_reduce_alone() -> None:
    options = ("--sizes", "4,1K,1M", "--peers", "3", "--in-place", "--out-of-place", "--repeats", "5")
    rows = bench("all_reduce", *options)
    assert [row["bytes"] for row in rows] == [4, 4, 1024, 1024, 1 << 20, 1 << 20]
    assert [row["place"] for row in rows] == ["in place", "out of place"] * 3
    for row in rows:
        check_measures(row)
        assert (row["bench"], row["peers"], row["transport"]) == ("all_reduce", 3, "auto")
        assert row["algbw"] == pytest.approx(row["bytes"] / row["seconds"] / 1e9)
        assert row["busbw"] == pytest.approx(row["algbw"] * 4 / 3)
        assert "ratio" not in row


@pytest.mark.parametrize("transport", ["tcp", "cma", "shm"])
def test_all_reduce_by_transport(transport: str) -> None:
    (row,) = bench("all_reduce", "--sizes", "1M", "--transport", transport, "--repeats", "3")
    check_measures(row)
    assert row["transport"] == row["links"] == transport


@pytest.mark.skipif(find_spec("torch") is None, reason="gloo comes with torch")
def test_all_reduce_against_gloo() -> None:
    (row,) = bench("all_reduce", "--sizes", "64K", "--against", "gloo", "--repeats", "5")
    check_measures(row)
    check_measures(row["against"])
    assert row["against"]["name"].startswith("gloo")
    assert row["ratio"] == pytest.approx(row["against"]["seconds"] / row["seconds"])
    if row["namespace"].startswith("its own"):
        assert row["against"]["congestion_control"] == "reno"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("recovery", ("--kills", "2", "--sizes", "64K")),
        ("join", ("--repeats", "2")),
        ("topology", ("--repeats", "20")),
        ("sync_state", ("--repeats", "2", "--size", "3M")),
        (
            "memory",
            (
                "--size",
                "8M",
            ),
        ),
        (
            "pause",
            (
                "--repeats",
                "1",
            ),
        ),
    ],
)
def test_figures(name: str, options: tuple[str, ...]) -> None:
    figures = bench(name, *options)
    assert figures
    for figure in figures:
        assert figure["bench"] == name
        assert figure["right"]
        assert figure["value"] is None or figure["value"] >= 0
        expected = None if figure["goal"] is None else figure["value"] <= figure["goal"]
        assert figure["reached"] == expected


def test_table() -> None:
    command = [sys.executable, "-m", "pccl_py", "bench", "all_reduce", "--sizes", "1K", "--repeats", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    header, row = done.stdout.splitlines()[-2:]
    assert header.split()[:4] == ["bytes", "place", "ops", "seconds"]
    assert row.split()[:5] == ["1024", "in", "place", "3", row.split()[4]]


@pytest.mark.parametrize("arguments", [("--sizes", "3"), ("--sizes", "many"), ("--peers", "1")])
def test_wrong_arguments(arguments: tuple[str, ...]) -> None:
    assert bench("all_reduce", *arguments, status=2) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("topology --peers 1", "--peers: '1': it is a whole number from 2 to 16"),
        ("sync_state --peers 17", "--peers: '17'"),
        ("topology --repeats 0", "--repeats: '0': it is a whole number of at least 1"),
        ("join --repeats -1", "--repeats: '-1'"),
        ("pause --repeats 1.5", "--repeats: '1.5'"),
        ("all_reduce --repeats 0", "--repeats: '0'"),
        ("recovery --kills 0", "--kills: '0'"),
        ("memory --size 0", "'0' is no size"),
        ("sync_state --size 1", "'1': sizes are multiples of 4 bytes"),
        ("recovery --sizes 4,6", "'6': sizes are multiples of 4 bytes"),
    ],
)
def test_numbers_of_arguments(arguments: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments.split()])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_a_bench_that_measured_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pccl_py.bench.topology.measure", lambda peers, calls: iter(()))
    monkeypatch.setattr("pccl_py.bench.all_reduce.measure", lambda options: iter(()))
    assert main(["bench", "topology"]) == 1
    assert main(["bench", "all_reduce"]) == 1


def test_units() -> None:
    assert [parse_size(text) for text in ("7", "1K", "64M", "1G", "2MiB")] == [
        7,
        1024,
        64 << 20,
        1 << 30,
        2 << 20,
    ]
    for text in ("", "0", "-1", "1.5M", "K", "1T"):
        with pytest.raises(UsageError):
            parse_size(text)
    assert [bytes_text(size) for size in (3, 1024, 256 << 20)] == ["3 B", "1 KiB", "256 MiB"]
    assert [seconds_text(s) for s in (12e-6, 0.0123, 2)] == ["12.0 us", "12.30 ms", "2.00 s"]
    assert percentile([3, 1, 2], 99) == 3
    assert percentile(list(range(1, 101)), 99) == 99
