"""What the demonstration is made of: its text, its options, and what it concludes from what peers say."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import pccl_py as pccl
from pccl_py.demo.data import load, standard_library
from pccl_py.demo.live import LiveView
from pccl_py.demo.model import BYTES, GPT, Shape
from pccl_py.demo.options import Options, add_arguments, from_arguments, to_arguments
from pccl_py.demo.record import Peer, Record
from pccl_py.demo.report import table, write_report


def test_text_is_the_standard_library_and_split_alike_everywhere() -> None:
    one, other = load([], 65), load([], 65)
    assert one.digest == other.digest
    assert len(one.train) > 2_000_000
    assert 0.01 < len(one.held_out) / len(one.train) < 0.2
    names = {path.name for path in standard_library()}
    assert "argparse.py" in names and not any("site-packages" in str(path) for path in standard_library())
    batch = next(one.batches(4, 65, seed=1))
    assert batch.shape == (4, 65) and torch.equal(batch, next(other.batches(4, 65, seed=1)))
    assert not torch.equal(batch, next(other.batches(4, 65, seed=2)))
    assert torch.equal(one.held_out_batch(3, 65), other.held_out_batch(3, 65))


def test_one_small_file_is_split_too(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"x" * 950 + b"y" * 50)
    corpus = load([file], 20)
    assert (len(corpus.train), len(corpus.held_out)) == (950, 50)
    assert set(corpus.held_out.tolist()) == {ord("y")}
    with pytest.raises(pccl.UsageError, match="too few"):
        load([file], 60)
    with pytest.raises(pccl.UsageError, match="cannot read"):
        load([tmp_path / "none"], 20)


def test_model_is_the_same_in_every_process_and_causal() -> None:
    torch.manual_seed(1)
    model = GPT(Shape(2, 2, 16, 8))
    torch.manual_seed(2)
    again = GPT(Shape(2, 2, 16, 8))
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True))
    text = torch.randint(BYTES, (2, 8))
    changed = text.clone()
    changed[:, 5:] = 0
    torch.testing.assert_close(model(text)[:, :5], model(changed)[:, :5])
    assert abs(model.loss(torch.randint(BYTES, (16, 9))).item() - 5.545) < 0.2  # ln 256: knows nothing yet


def test_options_survive_the_way_through_a_command_line() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = Options(master="h:1", windows=5, text=("a", "b"), insecure=True, held=True, lr=0.01, name="A")
    assert from_arguments(parser.parse_args(to_arguments(options))) == options
    assert from_arguments(parser.parse_args([])) == Options()


# ---- conclusions -------------------------------------------------------------------------------------------


def window(number: int, t: float, digest: str, contributors: list[int], loss: float) -> dict[str, Any]:
    return {
        "event": "window", "t": t, "number": number, "held_out": loss, "digest": digest, "attempts": 1,
        "contributors": contributors, "wait_s": 0.1, "committed_at": t, "sent": 1000 * number,
        "state_sent": 0,
    }  # fmt: skip


def story(**changes: Any) -> Record:
    """A and B train; B is killed in window 2, C comes in after it."""
    options = Options(peers=2, windows=3, steps=10, kill_in=2, join_in=2, png="")
    record = Record(options, 100.0)
    digests = {"A3": "d3", "C2": "d2", **changes}
    for name, peer in (("A", 1), ("B", 2), ("C", 3)):
        record.peers[name] = Peer(name)
        record.take(name, {"event": "ready", "t": 101.0, "parameters": 50, "corpus": "c", "bytes": 9})
        if name != "C":
            record.take(name, {"event": "member", "t": 102.0, "id": peer})
            record.take(name, {"event": "begins", "t": 102.0, "window": 0, "digest": "d0"})
            record.take(name, window(1, 103.0, "d1", [1, 2], 5.0))
    record.peers["B"].killed_at = 103.5
    record.take("A", {"event": "news", "t": 103.6, "text": "view 2: peer 2 is gone"})
    record.peers["C"].told_at = 103.7
    record.take("A", window(2, 104.0, "d2", [1], 4.5))
    record.take("C", {"event": "member", "t": 104.1, "id": 3})
    record.take("C", {"event": "begins", "t": 104.3, "window": 2, "digest": digests["C2"]})
    record.take("C", window(3, 105.0, "d3", [1, 3], 4.0))
    record.take("A", window(3, 105.0, digests["A3"], [1, 3], 4.0))
    return record


def test_conclusions(capsys: pytest.CaptureFixture[str]) -> None:
    record = story()
    assert record.faults() == []
    assert [row.members for row in record.rows()] == [("A", "B"), ("A",), ("A", "C")]
    assert [sorted(row.digests) for row in record.rows()] == [["A", "B"], ["A", "C"], ["A", "C"]]
    recovery, join = record.recovery(), record.join()
    assert recovery is not None and join is not None
    assert recovery.told_s == pytest.approx((0.1,)) and recovery.committed_s == pytest.approx(0.5)
    assert (recovery.window, join.name, join.window) == (2, "C", 2)
    assert (join.waited_s, join.admitted_s, join.state_s) == pytest.approx((0.3, 0.1, 0.2))
    traffic = {t.name: (t.windows, t.sent, t.data_parallel) for t in record.traffic()}
    # 2 (P - 1) / P x 4 bytes x 50 parameters x 10 steps is 2000 bytes in a window of two, none alone
    assert traffic == {"A": (3, 3000, 4000.0), "B": (1, 1000, 2000.0), "C": (1, 3000, 2000.0)}
    assert write_report(record, []) == 0
    assert "ALL EQUAL: 6 digests of 3 windows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"A3": "other"}, "window 3: the peers hold different bits"),
        ({"C2": "other"}, "window 2: the peers hold different bits"),
    ],
)
def test_different_bits_fail_the_demonstration(
    changes: dict[str, str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = story(**changes)
    assert record.faults() == [fault]
    assert write_report(record, []) == 1
    assert fault in capsys.readouterr().out


def test_other_faults() -> None:
    record = story()
    del record.peers["A"].windows[2]
    assert "window 2 was lost" in record.faults()
    record = story()
    for peer in record.peers.values():
        if 3 in peer.windows:
            peer.windows[3]["held_out"] = 5.5
    assert record.faults() == ["the loss on held-out text did not fall"]
    record = story()
    for name in "AC":
        record.peers[name].windows[3]["contributors"] = [1]
    assert record.faults() == ["window 3 is without C"]
    assert write_report(story(), ["B ended with status 1: oops"]) == 1


@pytest.mark.parametrize("height", [12, 24, 60])
def test_live_view_fits_the_terminal(height: int) -> None:
    file = io.StringIO()
    record = story()
    record.peers["B"].state = "killed"
    record.peers["A"].windows |= {n: window(n, 105.0 + n, f"d{n}", [1], 3.9) for n in range(4, 40)}
    view = LiveView(record, Console(file=file, force_terminal=True, width=100, height=height))
    for number in range(30):
        view.note(f"note {number}")
    with view:
        view.show("A", record.peers["A"].windows[39])
    text = file.getvalue()
    last = text[text.rindex("DiLoCo, 3 windows") :]
    assert "killed" in last and "note 29" in last and "3.900" in last
    assert last.count("\n") < max(height, 17)


def test_table() -> None:
    assert table([["a", "text"], [10, "x"], [2, "yyyyy"]], left=[1]) == [" a  text", "10  x", " 2  yyyyy"]
