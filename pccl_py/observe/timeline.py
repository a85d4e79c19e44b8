"""Dumps of many peers as one timeline, in the JSON that chrome://tracing and ui.perfetto.dev open: a process
per peer, with a row of events, rows of operations, and two rows for each of its links."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .clocks import to_common
from .trace_format import Event, Key, Trace

NEWS = {
    "view",
    "master_found",
    "master_lost",
    "link_up",
    "link_lost",
    "waits",
    "boundary",
    "ended",
    "dropped",
}
ENDS = {"committed", "failed"}
TO_PEER, FROM_PEER = 1_000_000, 2_000_000
Row = dict[str, Any]


def merge(traces: Iterable[Trace]) -> dict[str, Any]:
    """{"traceEvents": [...]}: times in microseconds from the first event of all on."""
    joined = join(traces)
    offsets = to_common(joined)
    begin = min((t.events[0].at_ns + o for t, o in zip(joined, offsets, strict=True) if t.events), default=0)
    rows: list[Row] = []
    for index, (trace, offset) in enumerate(zip(joined, offsets, strict=True)):
        rows += _peer_rows(trace, index + 1, offset - begin)
    return {"traceEvents": rows, "displayTimeUnit": "ms"}


def join(traces: Iterable[Trace]) -> list[Trace]:
    """Several dumps of one peer hold some events twice: one trace each, by peer."""
    by_peer: dict[tuple[int, int, str, int], Trace] = {}
    for trace in traces:
        identity = (trace.run, trace.peer, trace.host, trace.process)
        if (other := by_peer.get(identity)) is not None:
            numbered = {event.number: event for event in [*other.events, *trace.events]}
            events = [numbered[number] for number in sorted(numbered)]
            trace = replace(trace, events=events, written=max(trace.written, other.written))
        by_peer[identity] = trace
    return [by_peer[identity] for identity in sorted(by_peer)]


def _peer_rows(trace: Trace, pid: int, offset: int) -> Iterator[Row]:
    island = f", island {trace.island}" if trace.island else ""
    title = f"peer {trace.peer} ({trace.host}, process {trace.process}{island})"
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": title}}
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": trace.peer}}
    yield _thread(pid, 0, "events", 0)
    operations: dict[Key, list[Event]] = {}
    for event in trace.events:
        if event.kind in NEWS:
            yield {
                "ph": "i", "s": "p", "name": _news(event), "pid": pid, "tid": 0,
                "ts": (event.at_ns + offset) / 1e3, "args": {"peer": event.peer, "a": event.a, "b": event.b},
            }  # fmt: skip
        if event.kind not in NEWS or event.kind == "dropped":
            operations.setdefault(event.key, []).append(event)
    last = max((event.at_ns for event in trace.events), default=0)
    yield from _operation_rows(operations.values(), pid, offset, last)


def _news(event: Event) -> str:
    if event.kind == "view":
        return f"view {event.a >> 32}.{event.a & 0xFFFFFFFF}: {event.b} members"
    if event.kind == "boundary":
        return f"update_topology {('entered', 'passed', 'failed')[min(event.a, 2)]}"
    return event.kind + (f" {event.peer}" if event.peer else "")


def _operation_rows(operations: Iterable[Sequence[Event]], pid: int, offset: int, last: int) -> Iterator[Row]:
    """In lanes: what overlaps is below each other."""
    posted = [events for events in operations if any(event.kind == "posted" for event in events)]
    lanes: list[int] = []
    links: set[int] = set()
    for events in sorted(posted, key=lambda events: min(event.at_ns for event in events)):
        times = {event.kind: event.at_ns for event in events}
        begin, end = times["posted"], max((times[kind] for kind in ENDS & times.keys()), default=last)
        lane = next((lane for lane, until in enumerate(lanes) if until <= begin), len(lanes))
        fresh = lane == len(lanes)
        lanes[lane : lane + 1] = [end]
        if fresh:
            yield _thread(pid, lane + 1, f"operations {lane + 1}", lane + 1)
        yield from _phases(events, times, begin, end, pid, lane + 1, offset)
        for row in _link_rows(events, pid, offset, last):
            if row["tid"] not in links:
                links.add(row["tid"])
                yield _thread(pid, row["tid"], row["name"], row["tid"])
            yield row


def _phases(
    events: Sequence[Event], times: dict[str, int], begin: int, end: int, pid: int, tid: int, offset: int
) -> Iterator[Row]:
    first = next(event for event in events if event.kind == "posted")
    ended = next((event for event in events if event.kind in ENDS), None)
    args: Row = {"operation": str(first.key), "bytes": first.a, "end": ended.kind if ended else "in flight"}
    if ended is not None:
        args |= {"attempts": ended.b} | ({"error": ended.a} if ended.kind == "failed" else {})
    yield _slice(first.call, begin, end, pid, tid, offset, args)
    moved = min((event.at_ns for event in events if event.kind.startswith("first_")), default=None)
    if moved is None:
        waited = times.get("done", end)
        if waited > begin:
            yield _slice("waits for others", begin, waited, pid, tid, offset, {})
    else:
        yield _slice("until the first byte", begin, moved, pid, tid, offset, {})
        yield _slice("moves data", moved, times.get("done", end), pid, tid, offset, {})
    if "done" in times and end > times["done"]:
        yield _slice("waits for the commit", times["done"], end, pid, tid, offset, {})


def _link_rows(events: Sequence[Event], pid: int, offset: int, last: int) -> Iterator[Row]:
    for way, word, tid in (("sent", "to", TO_PEER), ("received", "from", FROM_PEER)):
        begun: dict[int, int] = {}
        for event in events:
            if event.kind == f"first_{way}":
                begun[event.peer] = event.at_ns
            elif event.kind == f"last_{way}" and event.peer in begun:
                args = {"bytes": event.a} | ({"full_s": event.b / 1e9} if way == "sent" else {})
                begin = begun.pop(event.peer)
                yield _slice(
                    f"{word} peer {event.peer}", begin, event.at_ns, pid, tid + event.peer, offset, args
                )
        for peer, begin in begun.items():
            yield _slice(f"{word} peer {peer}", begin, last, pid, tid + peer, offset, {"open": True})


def _slice(name: str, begin: int, end: int, pid: int, tid: int, offset: int, args: Row) -> Row:
    ts, duration = (begin + offset) / 1e3, max(0, end - begin) / 1e3
    return {"ph": "X", "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": duration, "args": args}


def _thread(pid: int, tid: int, name: str, order: int) -> Row:
    return {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name, "order": order}}
