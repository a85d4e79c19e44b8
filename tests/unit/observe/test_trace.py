"""Dumps: a bounded decoder, clocks by commits, and the timeline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccl_py.cli import main
from pccl_py.observe import Trace, TraceError, decode, merge, read
from pccl_py.observe.clocks import to_common
from pccl_py.observe.trace_format import BYTES_MAX, ENTRY, HEADER, KINDS, MAGIC

MS = 1_000_000


def entry(number: int, at_ns: int, kind: str, count: int, peer: int = 0, a: int = 0, b: int = 0) -> bytes:
    return ENTRY.pack(number, at_ns, KINDS.index(kind) + 1, 1, 1, 0, 0, 0, count, 0, peer, 0, a, b)


def header(peer: int, wall_ns: int = 0, written: int = 0) -> bytes:
    return HEADER.pack(
        MAGIC, HEADER.size, ENTRY.size, 64, written, wall_ns, 7, peer, 40 + peer, b"box", b"east"
    )


def reduces(peer: int, other: int, clock_ns: int, operations: int, wall_ns: int = 0) -> bytes:
    """Each of them begins 10 ms behind the one before, and is committed 9 ms later."""
    data, number = header(peer, wall_ns, operations * 7), 0
    for count in range(operations):
        begin = clock_ns + count * 10 * MS
        for at, kind, who, a, b in (
            (0, "posted", 0, 4000, 0),
            (1, "first_sent", other, 0, 0),
            (2, "first_received", other, 0, 0),
            (6, "last_sent", other, 4000, 3 * MS),
            (7, "last_received", other, 4000, 0),
            (7, "done", 0, 0, 0),
            (9, "committed", 0, 9 * MS, 1),
        ):
            number += 1
            data += entry(number, begin + at * MS, kind, count, who, a, b)
    return data


def test_what_was_written_is_read() -> None:
    trace = decode(reduces(3, 4, 500, 2, wall_ns=9))
    assert (trace.run, trace.peer, trace.process, trace.host, trace.island) == (7, 3, 43, "box", "east")
    assert (trace.wall_ns, trace.lost, len(trace.events)) == (9, 0, 14)
    sent = trace.events[3]
    assert (sent.kind, sent.call, sent.peer, sent.a, sent.b, sent.at_ns) == (
        "last_sent", "all_reduce", 4, 4000, 3 * MS, 500 + 6 * MS,
    )  # fmt: skip


def test_entries_in_any_order_and_those_that_are_not_whole() -> None:
    unknown = ENTRY.pack(3, 30, 200, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    data = (
        header(1, written=4)
        + entry(2, 20, "done", 0)
        + bytes(ENTRY.size)
        + unknown
        + entry(1, 10, "posted", 0)
    )
    trace = decode(data + b"half an entry")
    assert [event.kind for event in trace.events] == ["posted", "done"] and trace.lost == 2


@pytest.mark.parametrize("data", [b"", b"PCTRACE1", b"x" * 500, header(1)[:-1], MAGIC + bytes(HEADER.size)])
def test_what_is_no_dump_is_refused(data: bytes) -> None:
    with pytest.raises(TraceError):
        decode(data)


def test_a_file_that_is_too_large_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "large.pccltrace"
    path.write_bytes(header(1))
    with open(path, "r+b") as file:
        file.truncate(BYTES_MAX + 1)
    with pytest.raises(TraceError, match=r"large.pccltrace: .* larger"):
        read(path)


@given(st.binary(max_size=400), st.integers(0, 2))
def test_hostile_bytes_raise_nothing_but_trace_errors(data: bytes, begin: int) -> None:
    try:
        merge([decode((b"", header(1), reduces(1, 2, 0, 1))[begin] + data)])
    except TraceError:
        assert begin == 0


def test_clocks_are_aligned_by_commits_however_wrong_the_walls_are() -> None:
    one, other = decode(reduces(1, 2, 0, 5)), decode(reduces(2, 1, 123_456 * MS, 5, wall_ns=-77 * MS))
    assert to_common([one, other]) == [0, -123_456 * MS]
    few = decode(reduces(2, 1, 5, 2, wall_ns=70))
    assert to_common([one, few]) == [0, 70]


def slices(merged: dict[str, object], name: str) -> list[tuple[int, float, float]]:
    rows = merged["traceEvents"]
    assert isinstance(rows, list)
    return [(row["pid"], row["ts"], row["dur"]) for row in rows if row["name"] == name and row["ph"] == "X"]


def test_the_timeline_of_two_peers() -> None:
    merged = merge([decode(reduces(2, 1, 900 * MS, 3)), decode(reduces(1, 2, 0, 3))])
    json.dumps(merged)
    all_reduces = slices(merged, "all_reduce")
    assert sorted(all_reduces) == [(peer, begin * 1e4, 9e3) for peer in (1, 2) for begin in range(3)]
    assert slices(merged, "moves data")[0] == (1, 1e3, 6e3)
    assert slices(merged, "to peer 2") == [(1, begin * 1e4 + 1e3, 5e3) for begin in range(3)]
    assert slices(merged, "from peer 1") == [(2, begin * 1e4 + 2e3, 5e3) for begin in range(3)]


def test_what_was_in_flight_when_the_process_died_ends_with_the_dump() -> None:
    data = (
        header(1)
        + entry(1, 0, "posted", 0)
        + entry(2, MS, "first_sent", 0, 2)
        + entry(3, 5 * MS, "link_lost", 0, 2)
    )
    merged = merge([decode(data)])
    assert slices(merged, "all_reduce") == [(1, 0, 5e3)] and slices(merged, "to peer 2") == [(1, 1e3, 4e3)]


def test_overlapping_operations_have_rows_of_their_own() -> None:
    data = header(1) + b"".join(
        entry(number, at * MS, kind, count)
        for number, (at, kind, count) in enumerate(
            [(0, "posted", 0), (1, "posted", 1), (3, "committed", 0), (4, "posted", 2), (5, "committed", 1),
             (6, "committed", 2)], 1,
        )
    )  # fmt: skip
    rows = merge([decode(data)])["traceEvents"]
    lanes = {row["args"]["operation"]: row["tid"] for row in rows if row["name"] == "all_reduce"}
    assert lanes == {"#0.0": 1, "#0.1": 2, "#0.2": 1}
    assert sorted(row["tid"] for row in rows if row["name"] == "thread_name") == [0, 1, 2]


def test_dumps_of_one_peer_are_one_row() -> None:
    whole, part = decode(reduces(1, 2, 0, 3)), decode(reduces(1, 2, 0, 2))
    assert len(slices(merge([part, whole]), "all_reduce")) == 3


def test_the_command_merges_and_says_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for peer in (1, 2):
        (tmp_path / f"{peer}.pccltrace").write_bytes(reduces(peer, 3 - peer, 0, 3))
    (tmp_path / "broken.pccltrace").write_bytes(b"no dump")
    out = tmp_path / "out.json"
    assert main(["trace", str(tmp_path), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert "peer 1 on box: 21 events" in said.out and "broken.pccltrace" in said.err
    assert len(slices(json.loads(out.read_text()), "all_reduce")) == 6
    assert main(["trace", str(tmp_path / "broken.pccltrace"), "-o", str(out)]) == 1


def test_lost_events_are_counted() -> None:
    assert Trace(1, 1, 1, "", "", 0, 5, []).lost == 5
