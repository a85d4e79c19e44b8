"""The demonstration in small: the same code with a tiny model, as a command and as the example."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from pccl_py import Master
from tests.conftest import ROOT, Spawn

# Window, held-out loss, a mark for each of four peers, digest, how many held it.
ROW = r"^ *(\d+) +[\d.]+ s +([\d.]+)  (.)  (.)  (.)  (.)  ([0-9a-f]{32}) +(\d) of \8$"
TINY = ("--width", "32", "--layers", "1", "--context", "32", "--batch", "4", "--outer-momentum", "0.5")


@pytest.mark.deadline(150)
def test_demo_survives_a_kill_and_lets_a_peer_join(spawn: Spawn, tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    schedule = ("--windows", "12", "--steps", "8", "--kill-in", "4", "--join-in", "7")
    demo = spawn("-m", "pccl_py", "demo", *TINY, *schedule, "--png", str(picture))
    text, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, text
    rows = re.findall(ROW, text, re.M)
    assert [int(row[0]) for row in rows] == list(range(1, 13)), text
    assert float(rows[-1][1]) < float(rows[0][1]) - 0.5, "the loss did not fall"
    assert len({row[6] for row in rows}) == 12, "the outer state changes in each window"
    there = ["".join(row[2:6]) for row in rows]
    assert there[0] == "xxx-" and there[-1] == "xx-x", there
    joined = there.index("xx-j")
    assert 6 <= joined < 11 and there[joined + 1 :] == ["xx-x"] * (11 - joined), there
    assert "ALL EQUAL: " in text and "kill -9 of C" in text and "D joined after window" in text
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


@pytest.mark.deadline(150)
def test_example_is_one_peer_of_a_run(spawn: Spawn, tmp_path: Path, master: Master) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(range(32, 127)) * 200)
    options = (*TINY, "--windows", "4", "--steps", "5", "--founders", "2", "--text", str(text), "--json")
    options = (*options, "--window-samples", "40")  # of all peers: one order, each passage once
    example = ("examples/train_gpt.py", "--master", master.address)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # also where the package is built but not installed
    peers = [spawn(*example, "--name", name, *options, env=env) for name in "AB"]
    windows = []
    for peer in peers:
        said, _ = peer.communicate(timeout=120)
        assert peer.returncode == 0, said
        events = [json.loads(line) for line in said.splitlines()]
        told = ("number", "digest", "held_out", "trained")
        windows.append([[e[key] for key in told] for e in events if e["event"] == "window"])
        last = [event for event in events if event["event"] != "news"][-1]  # the other one's leaving is news
        assert last["event"] == "end" and last["sent"] > 0
    assert windows[0] == windows[1] and [told[0] for told in windows[0]] == [1, 2, 3, 4]
    assert all(1 < trained < 6 for *_, trained in windows[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--peers", "1"), "nobody"),
        (("--kill-in", "16"), "--kill-in 16: from 0 (never) to 15"),
        (("--width", "30"), "--heads"),
        (("--steps", "0"), "--steps 0: at least 1"),
    ],
)
def test_wrong_arguments_end_with_status_2(spawn: Spawn, options: tuple[str, ...], words: str) -> None:
    demo = spawn("-m", "pccl_py", "demo", *options)
    text, _ = demo.communicate(timeout=50)
    assert demo.returncode == 2 and words in text, text
