"""`python -m pccl_py bench`: each runs in a small size, values are right, the JSON has the promised shape.

No figure is compared with a time: a busy machine is no fault.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator
from pccl_py.bench import plot, transports
from pccl_py.bench.namespace import default_congestion_control, known_congestion_controls
from pccl_py.bench.quantized_bound import bounds
from pccl_py.bench.transports import TRANSPORTS
from pccl_py.bench.units import bytes_text, parse_size, percentile, seconds_text
from pccl_py.cli import main
from pccl_py.errors import UsageError
from pccl_py.tensors import DTYPE_CODES

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


needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="gloo comes with torch")


def bench(*arguments: str, status: int = 0) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "pccl_py", "bench", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum("error" in row for row in rows) == (status != 0)
    return [row for row in rows if "error" not in row]


def check_measures(record: dict[str, Any]) -> None:
    for name, kind in MEASURES.items():
        assert type(record[name]) is kind, name
    assert record["correct"]
    assert record["seconds"] > 0
    assert record["congestion_control"]


def test_all_reduce_alone() -> None:
    options = ("--sizes", "4,1K,1M", "--peers", "3", "--in-place", "--out-of-place", "--repeats", "5")
    options += ("--transport", "tcp")
    rows = bench("all_reduce", *options)
    assert [row["bytes"] for row in rows] == [4, 4, 1024, 1024, 1 << 20, 1 << 20]
    assert [row["place"] for row in rows] == ["in place", "out of place"] * 3
    for row in rows:
        check_measures(row)
        assert (row["bench"], row["peers"]) == ("all_reduce", 3)
        assert row["transport"] in ("shm+cma", "shm", "cma", "tcp")  # whatever is possible here
        assert row["algbw"] == pytest.approx(row["bytes"] / row["seconds"] / 1e9)
        assert row["busbw"] == pytest.approx(row["algbw"] * 4 / 3)
        assert "ratio" not in row


@needs_torch
@pytest.mark.nightly
@pytest.mark.deadline(150)
def test_snapshot_coded() -> None:
    found = bench("snapshot", "--size", "8M", "--repeats", "1", "--parts", "coded")
    rows = {row["figure"]: row for row in found}
    assert all(row["right"] and row["value"] > 0 and row["goal"] > 0 for row in found)
    for losses, words in ((1, "1 loss"), (2, "2 losses")):
        assert rows[f"coded against {words}, 4 x 8 MiB, tcp"]["details"]["copies_s"] > 0
        assert f"memory of keepers, of 2 S (1 + m/(n-m)), m = {losses}" in rows
        sent = rows.get(f"network bytes, of {losses} x what is coded")  # none: no namespace can be had
        assert sent is None or 0.95 < sent["value"] < 1.3  # with what rounds say, beside so little


@needs_torch
@pytest.mark.deadline(150)
def test_snapshot_lost() -> None:
    (row,) = bench("snapshot", "--size", "8M", "--repeats", "1", "--parts", "lost")
    assert row["figure"] == "lost host decoded and restored, 6 x 16 MiB, parity 1, tcp"
    assert row["right"] and row["value"] > 0 and row["goal"] == 1.5


def keepers_in(folder: Path) -> set[int]:
    """Process ids of those whose sockets are somewhere in the folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            in_folder = f"XDG_RUNTIME_DIR={folder}/".encode() in (process / "environ").read_bytes()
            if in_folder and b"pccl_py.snapshot.keeper" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
    return found


def test_a_bench_that_is_told_to_end_leaves_no_keepers(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pb-"))  # short: a socket's path is
    command = [sys.executable, "-m", "pccl_py", "bench", "snapshot", "--size", "8M", "--parts", "lost"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"TMPDIR": str(folder)})
    try:
        begun = time.monotonic()
        while not (keepers := keepers_in(folder)):
            assert time.monotonic() - begun < 60 and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
        until = time.monotonic() + 10
        while left := keepers_in(folder):
            assert time.monotonic() < until, f"of {keepers} are left: {left}"
            time.sleep(0.05)
        assert list(folder.iterdir()) == []
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@needs_torch
def test_all_reduce_against_gloo() -> None:
    (row,) = bench("all_reduce", "--sizes", "64K", "--against", "gloo", "--repeats", "5")
    check_measures(row)
    check_measures(row["against"])
    assert row["against"]["name"].startswith("gloo")
    assert row["ratio"] == pytest.approx(row["against"]["seconds"] / row["seconds"])
    assert row["cpu_ratio"] == pytest.approx(row["cpu_seconds"] / row["against"]["cpu_seconds"])
    if row["namespace"].startswith("its own"):
        assert row["against"]["congestion_control"] == "reno"


@needs_torch
@pytest.mark.parametrize("choice", ["reno", "default", "system"])
def test_congestion_control_of_both_sides(choice: str) -> None:
    """A name: both have it. default: ours picks its own. system: both have the system's."""
    known, own = known_congestion_controls(), default_congestion_control()
    if choice not in ("default", "system", *known):
        pytest.skip(f"this kernel has {', '.join(known)}")
    options = ("--sizes", "4K", "--against", "gloo", "--repeats", "2", "--congestion-control", choice)
    (row,) = bench("all_reduce", *options)
    ours, theirs = row["congestion_control"], row["against"]["congestion_control"]
    if row["namespace"].startswith("its own"):
        assert theirs == (own if choice in ("default", "system") else choice)
        assert choice == "default" or ours == theirs
    assert row["correct"] and row["against"]["correct"]


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint16", "bfloat16"])
def test_all_reduce_of_other_dtypes(dtype: str) -> None:
    if dtype == "bfloat16" and find_spec("torch") is None:
        pytest.skip("bfloat16 comes with torch")
    options = ("--sizes", "1K", "--dtype", dtype, "--in-place", "--out-of-place", "--repeats", "2")
    rows = bench("all_reduce", *options)
    assert [row["place"] for row in rows] == ["in place", "out of place"]
    for row in rows:
        check_measures(row)
        assert row["dtype"] == dtype


def test_a_run_for_each_number_of_peers() -> None:
    rows = bench("all_reduce", "--sizes", "1K", "--peers", "2,4", "--repeats", "2")
    assert [row["peers"] for row in rows] == [2, 4]
    assert all(row["correct"] for row in rows)


def test_wrong_results_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pccl_py.bench.all_reduce_peer.holds", lambda array, pattern: False)
    assert main(["bench", "all_reduce", "--sizes", "1K", "--repeats", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["correct"] is False


@needs_torch
def test_backend_of_torch() -> None:
    rows = bench("torch", "--sizes", "4,1M", "--repeats", "5")
    assert [(row["bench"], row["bytes"], row["small"]) for row in rows] == [
        ("torch", 4, True),
        ("torch", 1 << 20, False),
    ]
    for row in rows:
        assert row["correct"] and row["against"].startswith("gloo")
        assert all(row[way]["seconds"] > 0 for way in ("core", "backend", "gloo"))
        assert row["share_of_core"] == pytest.approx(row["backend"]["seconds"] / row["core"]["seconds"])


@needs_torch
def test_latency() -> None:
    rows = bench("latency", "--sizes", "1K,64K", "--against", "gloo", "--repeats", "10")
    assert [row["bytes"] for row in rows] == [1024, 65536]
    for row in rows:
        check_measures(row)
        check_measures(row["against"])
        assert 0 < row["exchange_seconds"] < row["seconds"] <= row["p99_seconds"]
        assert row["ratio"] == pytest.approx(row["against"]["seconds"] / row["seconds"])
        assert row["exchange_ratio"] == pytest.approx(row["against"]["seconds"] / row["exchange_seconds"])


def test_recorder() -> None:
    (row,) = bench("recorder", "--sizes", "1K", "--repeats", "10")
    check_measures(row)
    assert row["cost"] == pytest.approx(row["p25_seconds"] / row["unrecorded_p25_seconds"] - 1)
    assert row["cost_spread"] >= 0


def test_concurrent() -> None:
    rows = bench("concurrent", "--sizes", "64K,1M", "--count", "3", "--peers", "3", "--repeats", "3")
    assert [(row["bytes_each"], row["bytes"]) for row in rows] == [(65536, 196608), (1 << 20, 3 << 20)]
    for row in rows:
        check_measures(row)
        check_measures(row["one"])
        assert row["ratio"] == pytest.approx(row["one"]["seconds"] / row["seconds"])


def test_quantized() -> None:
    """Sizes whose blocks are cut in the middle too: 3 peers."""
    for peers, size in (("4", "4M"), ("3", "100K")):
        options = ("--peers", peers, "--sizes", size, "--repeats", "2", "--codec-sizes", "64K")
        rows = bench("quantized", *options)
        plain, *coded = [row for row in rows if row["bench"] == "quantized"]
        assert plain["quantization"] == "none"
        assert [row["quantization"] for row in coded] == ["int8", "uint8", "int4", "fp8", "bf16"]
        for row in (plain, *coded):
            check_measures(row)
            assert row["same_bits"]
            assert 0 < row["error_rms"] < row["error_max"] <= row["bound_max"]
            assert row["bound_share"] <= 1
            assert row["ratio"] == pytest.approx(plain["seconds"] / row["seconds"])
        share = {row["quantization"]: row["bytes_sent"] / plain["bytes_sent"] for row in coded}
        assert share["int4"] < 0.2 < share["int8"] < 0.3 and share["bf16"] == pytest.approx(0.5, abs=0.01)
        codecs = [row for row in rows if row["bench"] == "codec"]
        assert [row["quantization"] for row in codecs] == ["int8", "uint8", "int4", "fp8", "bf16"]
        for row in codecs:
            assert row["correct"]
            assert min(row["encode_gbs"], row["decode_gbs"], row["add_gbs"]) > 0


def test_errors_beyond_the_bound_are_seen() -> None:
    """What the bench calls right is what the data plane promises: a coarser code is wrong."""
    contributions = np.random.default_rng(3).standard_normal((4, 4096)).astype(np.float32)
    exact = contributions.astype(np.float64).mean(0)
    bound = bounds("int8", contributions, aligned=True)
    assert (bound <= 2 * np.abs(contributions).max() / 254 * 1.001).all()
    assert (bounds("int4", contributions, aligned=True) > 10 * bound).all()
    assert (bounds("int8", contributions, aligned=False) >= bound).all()
    coarse = np.round(exact / 0.2) * 0.2  # 30 codes from the smallest to the largest
    assert (np.abs(coarse - exact) > bound).any()


def test_kernels() -> None:
    rows = bench("kernels", "--sizes", "64K", "--repeats", "1")
    levels = {row["level"] for row in rows}
    assert "scalar" in levels
    assert len(rows) == len(DTYPE_CODES) * 4 * len(levels)
    for row in rows:
        assert row["correct"], row
        assert row["gbs"] > 0 and row["memcpy_ratio"] == pytest.approx(row["gbs"] / row["memcpy_gbs"])
        assert ("numpy_ratio" in row) == (row["dtype"] != "bfloat16")


def test_erasure() -> None:
    options = ("--size", "2M", "--code", "3,1", "--code", "4,2", "--threads", "1,2", "--repeats", "1")
    rows = bench("erasure", *options, "--against", "memcpy,isal,pyeclib,zfec")
    whats = ["encode", "decode", "copy+crc", "copy+crc+encode"]
    assert [(row["k"], row["m"], row["threads"], row["what"]) for row in rows] == [
        (k, m, threads, what) for k, m in ((3, 1), (4, 2)) for threads in (1, 2) for what in whats
    ]
    for row in rows:
        assert row["correct"], row
        assert row["gbps"] > 0 and row["ratio_memcpy"] == pytest.approx(row["gbps"] / row["memcpy_gbps"])
        assert ("ratio_isal" in row) == (row["isal_version"] is not None and "copy" not in row["what"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_transports(transport: str) -> None:
    """Each one that the communicator takes; the others are named, and skipped by scripts."""
    built = "transport" in inspect.signature(Communicator.__init__).parameters
    status = 0 if built or transport in ("auto", "tcp") else 77
    rows = bench("all_reduce", "--sizes", "64K", "--repeats", "2", "--transport", transport, status=status)
    assert len(rows) == (status == 0)
    assert all(row["correct"] for row in rows)
    figures = bench("sync", "--size", "64K", "--repeats", "1", "--transport", transport, status=status)
    assert all(figure["right"] for figure in figures)


def test_a_transport_that_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as the communicator takes it."""

    class Chooses:
        def __init__(self, address: str, *, transport: str = "auto") -> None: ...

    assert transports.arguments("tcp") == {} or "transport" in inspect.signature(Communicator).parameters
    monkeypatch.setattr(transports, "Communicator", Chooses)
    assert transports.arguments("cma") == {"transport": "cma"}
    assert transports.arguments("auto") == {}
    transports.check("shm")


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="pictures come with matplotlib")
@pytest.mark.parametrize(
    "command",
    ["all_reduce --sizes 1K,64K --repeats 2", "kernels --sizes 64K --repeats 1 --op sum", "join --repeats 1"],
)
def test_plots(command: str, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    assert main(["bench", *command.split(), "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_plots_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is measured."""
    with pytest.raises(UsageError, match="no such directory"):
        plot.check(str(tmp_path / "nowhere" / "out.png"))
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs matplotlib: pip install"):
        plot.check(str(tmp_path / "out.png"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kill", ("--kills", "2", "--sizes", "64K")),
        ("master", ("--kills", "1", "--peers", "2", "--store", "file")),
        ("join", ("--repeats", "2")),
        ("topology", ("--repeats", "20")),
        pytest.param("heal", ("--repeats", "1", "--size", "1M"), marks=needs_torch),
        pytest.param(
            "ddp", ("--peers", "2", "--sizes", "50K", "--repeats", "5", "--kills", "2"), marks=needs_torch
        ),
        pytest.param("optim", ("--repeats", "2", "--size", "4M"), marks=needs_torch),
        ("sync", ("--repeats", "2", "--size", "3M")),
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
        ("sync --peers 17", "--peers: '17'"),
        ("topology --repeats 0", "--repeats: '0': it is a whole number of at least 1"),
        ("join --repeats -1", "--repeats: '-1'"),
        ("pause --repeats 1.5", "--repeats: '1.5'"),
        ("all_reduce --repeats 0", "--repeats: '0'"),
        ("kill --kills 0", "--kills: '0'"),
        ("all_reduce --peers 2,17", "--peers: '17'"),
        ("quantized --kinds int8,int9", "'int9': it is one of int8, uint8"),
        ("kernels --dtype float8", "'float8': it is one of float32, float64"),
        ("memory --size 0", "'0' is no size"),
        ("sync --size 1", "'1': sizes are multiples of 4 bytes"),
        ("kill --sizes 4,6", "'6': sizes are multiples of 4 bytes"),
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


RESHARD = """
import json, sys
from pccl_py.bench.reshard import measure
for row in measure([1 << 20], 1, sys.argv[1], pairs=((2, 1),)):
    print(json.dumps(row.record()))
"""


@needs_torch
def test_loads_into_another_number_of_ranks(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        RESHARD,
        str(tmp_path),
    ]  # the bench itself has more ranks, and takes longer
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    (row,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (row["bench"], row["saved"], row["loaded"], row["bytes"]) == ("reshard", 2, 1, 1 << 20)
    assert row["right"] and row["ratio"] == row["plain_s"] / row["load_s"] > 0
    assert row["reached"] == (row["ratio"] >= row["goal"] == 0.7)
    assert not list(tmp_path.iterdir())
