"""sync_shared_state over a core made of queues: what travels, what is refused, what is resumed."""

from __future__ import annotations

import ctypes
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py import Cancelled, Evicted, ProtocolError, SharedState, SyncInfo, hashing, state_sync
from pccl_py.hashing import memory
from pccl_py.state_sync import StateSync
from tests.threads import in_threads

CHUNK = 64  # instead of 1 MiB

Tensors = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(autouse=True)
def _small_chunks() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "CHUNK_BYTES", CHUNK)
        patch.setattr(state_sync, "CHUNK_BYTES", CHUNK)
        patch.setattr(state_sync, "HASH_BLOCK_BYTES", CHUNK)
        patch.setattr(state_sync, "RETRY_S", 0.02)
        yield


class Core:
    """Master and links of all peers. `on_fetch` may spoil, drop or fail a block, or start a new view."""

    def __init__(self, peers: int) -> None:
        self.lock = threading.RLock()
        self.operations = {peer: FakeOperation(self, peer) for peer in range(1, peers + 1)}
        self.attempt = 0
        self.fetched: list[tuple[int, int, int, bool, int]] = []  # (peer, donor, entry, hashes, offset)
        self.on_fetch: Callable[[int, int, int, bool, int], str | None] = lambda *_: None
        self.as_bytes: list[tuple[int, int]] = []  # (donor, offset) of chunks that had to be sent
        self.ended = False
        self.strategies: list[tuple[int, int, int]] = []  # (attempt, peer, strategy)
        self.new_view()

    def new_view(self) -> None:
        with self.lock:
            self.attempt += 1
            self.offers: dict[int, Any] = {}
            self.complete: set[int] = set()
            for operation in self.operations.values():
                operation.clear()
                operation.put("start", self.attempt)

    def offer(self, peer: int, offer: Any, strategy: int) -> None:
        self.offers[peer] = offer
        self.strategies.append((self.attempt, peer, strategy))
        if len(self.offers) < len(self.operations):
            return
        names = {tuple(entry[0] for entry in entries) for _, entries, _ in self.offers.values()}
        assert len(names) == 1
        revision = max(revision for revision, *_ in self.offers.values())
        winner = min(peer for peer, offer in self.offers.items() if offer[0] == revision)
        plan = []
        for index, entry in enumerate(self.offers[winner][1]):
            donors = [peer for peer, offer in self.offers.items() if offer[1][index][3] == entry[3]]
            plan.append((index, entry[3], sorted(donors)))
        for operation in self.operations.values():
            operation.put("elected", revision, plan)

    def fetch(self, peer: int, donor: int, entry: int, hashes: bool, offset: int, size: int, to: int) -> None:
        self.fetched.append((peer, donor, entry, hashes, offset))
        verdict = self.on_fetch(peer, donor, entry, hashes, offset)
        if verdict == "drop" or self.attempt != self.operations[peer].seen:
            return
        data, length, digests, digests_length = self.offers[donor][2][entry]
        source, whole = (digests, digests_length) if hashes else (data, length)
        if verdict == "fail":
            return self.operations[peer].put("failed", entry, "the donor is not in this synchronization")
        assert offset + size <= whole
        ctypes.memmove(to, source + offset, size)
        if verdict == "spoil":
            memory(to, size)[size // 2] ^= 1
        self.operations[peer].put("block", entry, hashes, offset, size)

    def vote(self, peer: int) -> None:
        assert peer not in self.complete, "voted twice"
        self.complete.add(peer)
        if len(self.complete) == len(self.operations):
            self.finish(0, "")

    def finish(self, code: int, text: str) -> None:
        if not self.ended:
            self.ended = True
            for operation in self.operations.values():
                operation.put("done", code, text, sorted(self.operations), 0, self.attempt, 0, 0, 0.5)


class FakeOperation:
    """One peer's StateOperation. Calls for an attempt that is over are void, as in the core."""

    def __init__(self, core: Core, peer: int) -> None:
        self.core, self.peer, self.seen = core, peer, 0
        self.events: queue.SimpleQueue[tuple[Any, ...]] = queue.SimpleQueue()

    def put(self, *event: Any) -> None:
        self.events.put(event)

    def clear(self) -> None:
        self.events = queue.SimpleQueue()

    def next(self, seconds: float) -> tuple[Any, ...] | None:
        until = 20.0 if seconds < 0 else seconds
        events = self.events
        while True:
            try:
                event = events.get(timeout=min(until, 0.01))
            except queue.Empty:
                until -= 0.01
                if events is not self.events:
                    events = self.events
                elif until <= 0:
                    assert seconds >= 0, "hangs"
                    return None
                continue
            if event[0] == "start":
                self.seen = event[1]
            return event

    def offer(self, revision: int, strategy: int, entries: Any, serve: Any, keep: object) -> None:
        with self.core.lock:
            if self.seen == self.core.attempt:
                self.core.offer(self.peer, (revision, entries, serve), strategy)

    def fetch(
        self, donor: int, entry: int, hashes: bool, offset: int, bytes: int, address: int, as_bytes: bool
    ) -> None:
        with self.core.lock:
            if self.seen == self.core.attempt:
                self.core.as_bytes += [(donor, offset)] * (as_bytes and not hashes)
                self.core.fetch(self.peer, donor, entry, hashes, offset, bytes, address)

    def complete(self) -> None:
        with self.core.lock:
            if self.seen == self.core.attempt:
                self.core.vote(self.peer)

    def cancel(self) -> None:
        with self.core.lock:
            self.core.finish(9, f"peer {self.peer} cancelled it")


def synchronize(states: list[SharedState], core: Core) -> list[SyncInfo | Exception]:
    """One thread per peer; what each returned or raised."""

    def run(index: int) -> SyncInfo | Exception:
        state = states[index]
        try:
            return StateSync(core.operations[index + 1], state.entries(), state.revision, 1).run()
        except Exception as error:
            return error

    return in_threads([partial(run, index) for index in range(len(states))], 30)


def infos(results: list[SyncInfo | Exception]) -> list[SyncInfo]:
    failed = [result for result in results if isinstance(result, Exception)]
    if failed:
        raise failed[0]
    return [result for result in results if isinstance(result, SyncInfo)]


def counting(chunks: int) -> np.ndarray[Any, Any]:
    return np.arange(chunks * CHUNK // 4, dtype=np.uint32)


def test_in_sync_nothing_travels() -> None:
    states = [SharedState({"a": counting(5), "b": counting(1)}, 3) for _ in range(3)]
    core = Core(3)
    for info in infos(synchronize(states, core)):
        assert (info.revision, info.donors, info.contributors) == (3, (), (1, 2, 3))
    assert core.fetched == []


def test_one_chunk_off_fetches_one_list_and_one_chunk() -> None:
    tensors = [{"a": counting(3), "b": counting(3)} for _ in range(2)]
    tensors[1]["b"][20] += 1  # in chunk 1
    core = Core(2)
    infos(synchronize([SharedState(tensors[0], 2), SharedState(tensors[1], 1)], core))
    assert core.fetched == [(2, 1, 1, True, 0), (2, 1, 1, False, CHUNK)]
    assert np.array_equal(tensors[1]["b"], counting(3))


def test_a_tensor_of_one_chunk_needs_no_list() -> None:
    small = np.zeros(3, np.float32)
    core = Core(2)
    infos(synchronize([SharedState({"a": np.ones(3, np.float32)}, 1), SharedState({"a": small})], core))
    assert core.fetched == [(2, 1, 0, False, 0)]
    assert np.all(small == 1)


def test_all_donors_are_used() -> None:
    tensors = [{"a": counting(60)} for _ in range(3)] + [{"a": np.zeros_like(counting(60))}]
    core = Core(4)
    info = infos(synchronize([SharedState(t, r) for t, r in zip(tensors, (5, 5, 5, 0), strict=True)], core))
    assert info[3].donors == (1, 2, 3)
    assert np.array_equal(tensors[3]["a"], counting(60))


def test_many_requests_stay_bounded() -> None:
    held: list[int] = []
    tensors = [{"a": counting(300)}, {"a": np.zeros_like(counting(300))}]
    core = Core(2)

    class Counting(StateSync):
        def _fetch(self, *arguments: Any) -> None:
            super()._fetch(*arguments)
            held.append(len(self._requests))

    sync = [StateSync(core.operations[1], SharedState(tensors[0], 1).entries(), 1, 1)]
    sync.append(Counting(core.operations[2], SharedState(tensors[1]).entries(), 0, 1))
    in_threads([one.run for one in sync], 30)
    assert np.array_equal(tensors[1]["a"], counting(300))
    assert max(held) <= state_sync.REQUESTS_PER_DONOR
    assert len(sync[1]._buffers) <= state_sync.REQUESTS_PER_DONOR


def test_garbage_never_reaches_the_tensor_and_another_donor_is_asked() -> None:
    good = counting(20)
    tensors = [{"a": good.copy()}, {"a": good.copy()}, {"a": good + 1}]
    core = Core(3)
    before = tensors[2]["a"].copy()

    def spoil(peer: int, donor: int, entry: int, hashes: bool, offset: int) -> str | None:
        words = slice(offset // 4, (offset + CHUNK) // 4)
        assert hashes or np.array_equal(tensors[2]["a"][words], before[words])
        return "spoil" if donor == 1 and not hashes else None

    core.on_fetch = spoil
    info = infos(synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 1, 0), strict=True)], core))
    assert info[2].donors == (2,)
    assert np.array_equal(tensors[2]["a"], good)


def test_a_chunk_that_was_read_too_late_is_sent_by_the_same_donor() -> None:
    """Inside a host it is read where it lies, and its owner may have ended and changed it by then."""
    good = counting(20)
    tensors = [{"a": good.copy()}, {"a": good + 1}]
    core = Core(2)

    def changed(peer: int, donor: int, entry: int, hashes: bool, offset: int) -> str | None:
        first = sum(block == (2, 1, 0, False, 3 * CHUNK) for block in core.fetched) == 1
        return "spoil" if not hashes and offset == 3 * CHUNK and first else None

    core.on_fetch = changed
    info = infos(synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 0), strict=True)], core))
    assert np.array_equal(tensors[1]["a"], good)
    assert core.as_bytes == [(1, 3 * CHUNK)]
    assert info[1].attempts == 1


def test_a_wrong_list_of_hashes_is_noticed() -> None:
    good = counting(20)
    tensors = [{"a": good.copy()}, {"a": good.copy()}, {"a": good + 1}]
    core = Core(3)
    core.on_fetch = lambda peer, donor, entry, hashes, offset: "spoil" if donor == 1 and hashes else None
    infos(synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 1, 0), strict=True)], core))
    assert np.array_equal(tensors[2]["a"], good)
    assert {donor for _, donor, _, hashes, _ in core.fetched if not hashes} == {2}


@pytest.mark.parametrize("which", [False, True])
def test_without_an_honest_donor_it_ends_for_all(which: bool) -> None:
    tensors = [{"a": counting(9)}, {"a": counting(9) + 1}]
    core = Core(2)
    core.on_fetch = lambda peer, donor, entry, hashes, offset: "spoil" if hashes == which else None
    results = synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 0), strict=True)], core)
    assert isinstance(results[0], Cancelled)
    assert isinstance(results[1], ProtocolError) and "no donor is left for 'a uint32[144]'" in str(results[1])


@pytest.mark.parametrize("hashes_too", [False, True])
def test_a_block_that_fails_is_asked_for_elsewhere(hashes_too: bool) -> None:
    good = counting(20)
    tensors = [{"a": good.copy()}, {"a": good.copy()}, {"a": good + 1}]
    core = Core(3)

    def fail(peer: int, donor: int, entry: int, hashes: bool, offset: int) -> str | None:
        return "fail" if donor == 1 and (hashes_too or not hashes) else None

    core.on_fetch = fail
    info = infos(synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 1, 0), strict=True)], core))
    assert np.array_equal(tensors[2]["a"], good)
    assert info[2].donors == (2,)


def test_a_new_view_resumes_instead_of_starting_over() -> None:
    good = counting(40)
    tensors = [{"a": good.copy()}, {"a": good + 1}]
    core = Core(2)
    interrupted = []

    def interrupt(peer: int, donor: int, entry: int, hashes: bool, offset: int) -> str | None:
        if not hashes and len(core.fetched) == 30 and not interrupted:
            interrupted.append(len(core.fetched))
            core.new_view()
            return "drop"
        return None

    core.on_fetch = interrupt
    info = infos(synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 0), strict=True)], core))
    assert info[1].attempts == 2
    assert np.array_equal(tensors[1]["a"], good)
    chunks = [offset for _, _, _, hashes, offset in core.fetched if not hashes]
    again = len(chunks) - len(set(chunks))
    assert again <= state_sync.REQUESTS_PER_DONOR
    # With some chunks fetched and others not, it holds a mixture: it must not offer that to anybody.
    assert (2, 2, state_sync.RECEIVE_ONLY) in core.strategies and (2, 1, 1) in core.strategies


def test_what_came_whole_is_offered_as_the_revision_that_it_is() -> None:
    """The donor goes when peer 2 has everything, and before the commit: nobody else holds revision 9."""
    good = counting(3)
    tensors = [{"a": good.copy()}, {"a": good + 1}]
    core = Core(2)
    vote, offered = core.vote, []

    def lose_the_donor(peer: int) -> None:
        if peer == 1 or core.attempt > 1:
            return vote(peer)
        core.operations[1].put("done", 12, "killed", [], 0, 1, 0, 0, 0.5)
        del core.operations[1]
        core.new_view()
        return None

    offer = core.offer
    core.vote = lose_the_donor  # type: ignore[method-assign]
    core.offer = lambda peer, what, strategy: (offered.append(what[0]), offer(peer, what, strategy))[1]  # type: ignore[method-assign]
    lost, info = synchronize([SharedState(t, r) for t, r in zip(tensors, (9, 0), strict=True)], core)
    assert isinstance(lost, Evicted) and isinstance(info, SyncInfo), info
    assert (info.revision, info.attempts, offered[-1]) == (9, 2, 9)
    assert np.array_equal(tensors[1]["a"], good)


def test_what_came_whole_stays_with_its_revision_though_it_failed_then() -> None:
    """All tensors of it: dense ones, which were written in place, and others, of which there is a copy."""
    base = np.zeros((8, 64), np.uint8)
    other, dense = {"a": np.ones((8, 32), np.uint8), "b": counting(2)}, counting(2) + 5
    core = Core(2)
    core.vote = lambda peer: core.finish(8, "time is over") if peer == 2 else None  # type: ignore[method-assign]
    states = [SharedState(other, 9), SharedState({"a": base[:, ::2], "b": dense}, 0)]
    syncs = [StateSync(core.operations[n + 1], s.entries(), s.revision, 1) for n, s in enumerate(states)]

    def run(sync: StateSync) -> None:
        with pytest.raises(TimeoutError):
            sync.run()

    in_threads([partial(run, sync) for sync in syncs], 30)
    assert (syncs[1].revision, syncs[1].torn) == (9, False)
    assert np.all(base[:, ::2] == 1) and not base[:, 1::2].any() and np.array_equal(dense, counting(2))


def test_copies_are_written_back_where_something_changed() -> None:
    base = np.zeros((8, 64), np.uint8)
    same = np.zeros((4, 4))[:, ::2]
    tensors = [{"a": np.ones((8, 32), np.uint8), "b": np.zeros((4, 2))}, {"a": base[:, ::2], "b": same}]
    infos(synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 0), strict=True)], Core(2)))
    assert np.all(base[:, ::2] == 1) and not base[:, 1::2].any()


def test_an_error_of_the_core_is_raised_and_copies_stay_unwritten() -> None:
    base = np.zeros((8, 64), np.uint8)
    tensors = [{"a": np.ones((8, 32), np.uint8)}, {"a": base[:, ::2]}]
    core = Core(2)

    def cancel(peer: int, donor: int, entry: int, hashes: bool, offset: int) -> str | None:
        if not hashes and len(core.fetched) > 4:
            core.finish(8, "time is over")
        return None

    core.on_fetch = cancel
    results = synchronize([SharedState(t, r) for t, r in zip(tensors, (1, 0), strict=True)], core)
    assert all(isinstance(result, TimeoutError) for result in results)
    assert not base.any()


def test_an_interrupt_cancels() -> None:
    core = Core(1)

    class Interrupted(FakeOperation):
        def offer(self, *arguments: Any) -> None:
            raise KeyboardInterrupt

    core.operations[1] = operation = Interrupted(core, 1)
    operation.put("start", 1)
    with pytest.raises(KeyboardInterrupt):
        StateSync(operation, SharedState({"a": counting(1)}).entries(), 0, 1).run()
    assert core.ended


@given(
    sizes=st.lists(st.integers(0, 7 * CHUNK), min_size=1, max_size=4),
    peers=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=4),
    changes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 7 * CHUNK)), max_size=20),
    views=st.sets(st.integers(1, 12), max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_whatever_differs_all_end_with_the_elected_content(
    sizes: list[int],
    peers: list[tuple[int, int]],
    changes: list[tuple[int, int, int]],
    views: set[int],
) -> None:
    """Any number of peers, revisions and differences, with new views at any fetch."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (hashing, state_sync):
            patch.setattr(module, "CHUNK_BYTES", CHUNK)
        patch.setattr(state_sync, "HASH_BLOCK_BYTES", CHUNK)
        tensors: list[Tensors] = []
        for _, fill in peers:
            tensors.append({str(i): np.full(size, fill, np.uint8) for i, size in enumerate(sizes)})
        for peer, entry, position in changes:
            if peer < len(peers) and entry < len(sizes) and position < sizes[entry]:
                tensors[peer][str(entry)][position] ^= 1
        states = [SharedState(t, revision) for t, (revision, _) in zip(tensors, peers, strict=True)]
        newest = max(revision for revision, _ in peers)
        holders = [i for i, (revision, _) in enumerate(peers) if revision == newest]
        possible = [states[i].digest() for i in holders]
        core = Core(len(peers))

        def interrupt(*_: Any) -> str | None:
            if len(core.fetched) in views:
                views.discard(len(core.fetched))
                core.new_view()
                return "drop"
            return None

        core.on_fetch = interrupt
        for info in infos(synchronize(states, core)):
            assert info.revision == newest
        digests = {state.digest() for state in states}
        assert len(digests) == 1 and digests <= set(possible)
