"""Peers that reduce together: values for every dtype and op, tags, scopes; peers that come, go and die."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import (
    Cancelled,
    ClosedError,
    Communicator,
    Master,
    MismatchError,
    NotBuilt,
    OperationTimeout,
    OpInfo,
    OrderError,
    PeerLost,
    SharedState,
    UsageError,
)
from pccl_py.tensors import DTYPE_CODES
from tests.conftest import Spawn

from .peers import PEER, QUICK, expect, together

INTEGERS = [name for name in DTYPE_CODES if "int" in name]
OPS = ["sum", "avg", "prod", "min", "max"]


def contribution(name: str, peer: int, count: int) -> torch.Tensor:
    """Small whole numbers: every result is exact, in every dtype and order."""
    values = (torch.arange(count) * (peer + 1) + peer) % 4 + 1
    return values.to(getattr(torch, name))


def expected(name: str, op: str, count: int, peers: int) -> torch.Tensor:
    stack = torch.stack([contribution(name, peer, count).to(torch.float64) for peer in range(peers)])
    total: torch.Tensor = {
        "sum": stack.sum(0),
        "avg": stack.sum(0) / peers,
        "prod": stack.prod(0),
        "min": stack.min(0).values,
        "max": stack.max(0).values,
    }[op]
    return (total.trunc() if name in INTEGERS else total).to(getattr(torch, name))


@pytest.mark.parametrize("peers", [1, 2, 3])
def test_every_dtype_and_op(master: Master, peers: int) -> None:
    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        for name in DTYPE_CODES:
            for op in OPS:
                for count in (1, 1000):
                    wanted = expected(name, op, count, peers)
                    tensor = contribution(name, rank, count)
                    out = torch.zeros_like(tensor)
                    comm.all_reduce(tensor, op, out=out)
                    assert torch.equal(tensor, contribution(name, rank, count)), "the input was changed"
                    comm.all_reduce(tensor, op)
                    if name in ("float16", "bfloat16") and op == "avg":
                        assert torch.allclose(out.float(), wanted.float(), rtol=1e-2)
                    else:
                        assert torch.allclose(out, wanted, rtol=1e-6), (name, op)
                    assert torch.equal(out, tensor)

    together(master.address, peers, play)


@pytest.mark.parametrize("peers", [2, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 1 << 16, (1 << 20) + 3])
def test_sizes_and_alignments(master: Master, peers: int, count: int) -> None:
    def play(comm: Communicator, index: int) -> OpInfo:
        raw = np.zeros(4 * count + 1, np.uint8)
        array = raw[1:].view(np.float32)
        array[:] = np.arange(count) % 1000 + comm.rank
        info = comm.all_reduce(array)
        assert np.array_equal(array, np.arange(count) % 1000 * peers + sum(range(peers)))
        return info

    infos = together(master.address, peers, play)
    assert {len(info.contributors) for info in infos} == {peers}
    if count >= 1 << 16:
        for info in infos:
            assert info.bytes_sent == pytest.approx(2 * (peers - 1) / peers * 4 * count, rel=0.01)


def test_a_list_is_one_operation(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        tensors: list[Any] = [np.full(3, 1.0), torch.ones(1000, dtype=torch.int64), np.zeros(0, np.int8)]
        tensors.append(torch.ones(1 << 18))
        info = comm.all_reduce(tensors)
        assert info.attempts == 1 and len(info.contributors) == 3
        assert all(np.all(np.asarray(tensor) == 3) for tensor in tensors)
        outs = [np.zeros(3), torch.zeros(1000, dtype=torch.int64), tensors[2], torch.zeros(1 << 18)]
        comm.all_reduce(tensors, "max", out=outs)
        assert all(np.all(np.asarray(out) == 3) for out in outs)

    together(master.address, 3, play)


def test_weights(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        rank = comm.rank
        array = np.full(100_000, float(rank + 1), np.float32)
        info = comm.all_reduce(array, "avg", weight=float(rank))
        assert np.allclose(array, (0 * 1 + 1 * 2 + 2 * 3) / 3)
        assert info.weight == 3.0
        half = torch.full((10,), float(rank), dtype=torch.bfloat16)
        comm.all_reduce(half, "avg", weight=0.5)
        assert torch.equal(half, torch.ones(10, dtype=torch.bfloat16))
        info = comm.all_reduce(array, "avg", weight=0)
        assert info.weight == 0 and not array.any()
        assert comm.all_reduce(array).weight is None

    together(master.address, 3, play)


def test_alone_is_the_identity(master: Master) -> None:
    with Communicator(master.address) as comm:
        values = np.array([np.nan, -0.0, np.inf, 5e-324, 1.1], np.float64)
        before = values.tobytes()
        for op in OPS:
            info = comm.all_reduce(values, op)  # type: ignore[call-overload]
            assert values.tobytes() == before
            assert (info.bytes_sent, info.bytes_received, info.contributors) == (0, 0, (comm.id,))
        assert comm.world_size == 1 and comm.rank == 0 and comm.islands == 1
        assert comm.update_topology() is False


def test_tags_meet_whatever_the_order(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        arrays = {tag: np.full(5000, tag, np.int64) for tag in (3, 2**32 - 3, 0, 17)}
        order = list(arrays) if index else list(reversed(arrays))
        works = {tag: comm.all_reduce(arrays[tag], tag=tag, async_op=True) for tag in order}
        for tag, work in works.items():
            info = work.wait()
            assert work.is_completed() and work.info == info
            assert np.all(arrays[tag] == 2 * tag)

    together(master.address, 2, play)


def test_threads_with_tags(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        errors: list[BaseException] = []

        def thread(tag: int) -> None:
            try:
                for step in range(20):
                    array = np.full(1 + 997 * tag, step * 10 + tag, np.float64)
                    comm.all_reduce(array, tag=tag)
                    assert np.all(array == 2 * (step * 10 + tag))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=thread, args=(tag,)) for tag in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        assert not errors

    together(master.address, 2, play)


def test_threads_without_tags_are_told(master: Master) -> None:
    """Two threads that count calls together would pair them differently on each peer."""

    def play(comm: Communicator, index: int) -> None:
        if index == 0:
            work = comm.all_reduce(np.ones(3), async_op=True)
            failed: list[BaseException] = []

            def other() -> None:
                try:
                    comm.all_reduce(np.ones(3))
                except BaseException as error:
                    failed.append(error)

            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
            assert isinstance(failed[0], UsageError) and "give each thread its tags" in str(failed[0])
            comm.barrier(tag=1)
            work.wait()
        else:
            comm.barrier(tag=1)
            comm.all_reduce(np.ones(3))

    together(master.address, 2, play)


def test_broadcast_and_barrier(master: Master) -> None:
    def play(comm: Communicator, index: int) -> float:
        for root in range(3):
            tensors = [np.full(1000, float(comm.rank)), torch.full((7,), comm.rank, dtype=torch.uint8)]
            info = comm.broadcast(tensors, root)
            assert isinstance(info, OpInfo)
            assert np.all(tensors[0] == root) and torch.all(tensors[1] == root)
        time.sleep(0.2 * comm.rank)
        begin = time.monotonic()
        comm.barrier()
        return time.monotonic() - begin if comm.rank == 0 else 0.4

    assert max(together(master.address, 3, play)) >= 0.35


def test_ranks_follow_admission_and_close_gaps(master: Master) -> None:
    comms = [Communicator(master.address, config=QUICK)]
    try:
        for _ in range(2):
            joiner: list[Communicator] = []
            thread = threading.Thread(target=lambda into=joiner: into.append(Communicator(master.address)))
            thread.start()
            while not comms[0].waiting:
                time.sleep(0.005)
            changed = [threading.Thread(target=comm.update_topology) for comm in comms]
            for one in [*changed, thread]:
                one.start() if one is not thread else None
            for one in [*changed, thread]:
                one.join()
            comms += joiner
        assert [comm.rank for comm in comms] == [0, 1, 2]
        assert len({comm.id for comm in comms}) == 3
        peers = comms[2].peers()
        assert [(peer.id, peer.rank) for peer in peers] == [(comm.id, comm.rank) for comm in comms]
        assert {(peer.group, peer.role, peer.island_rank) for peer in peers} == {(0, "trainer", 0)}
        assert all(peer.addresses[0].startswith("127.0.0.1:") for peer in peers)
        comms[0].leave()
        works = [comm.all_reduce(np.ones(2), async_op=True) for comm in comms[1:]]
        for work in works:
            assert work.wait().contributors == (comms[1].id, comms[2].id)
        assert [comm.rank for comm in comms[1:]] == [0, 1]
        assert [comm.world_size for comm in comms[1:]] == [2, 2]
    finally:
        for comm in comms:
            comm.leave()


def test_wait_for(master: Master) -> None:
    """No min_islands: each comes in when it comes, and returns when all are there."""

    def peer(results: list[int]) -> None:
        with Communicator(master.address, config=QUICK) as comm:
            comm.wait_for(3, timeout=20)
            array = np.ones(3)
            comm.all_reduce(array)
            results.append(int(array[0]))

    results: list[int] = []
    threads = [threading.Thread(target=peer, args=(results,)) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(30)
    assert results == [3, 3, 3]


def test_wait_for_ends_in_time(master: Master) -> None:
    with Communicator(master.address) as comm:
        with pytest.raises(OperationTimeout):
            comm.wait_for(2, timeout=0.1)
        comm.all_reduce(np.ones(3))


def test_groups_reduce_apart_and_scope_run_commits_together(master: Master) -> None:
    def play(comm: Communicator, index: int) -> tuple[int, ...]:
        array = np.ones(100)
        mine = comm.all_reduce(array, scope="run")
        assert np.all(array == 2)
        return mine.contributors

    results: list[Any] = [None] * 4

    def run(index: int) -> None:
        island, group = divmod(index, 2)
        options: Any = {"island": f"island-{island}", "island_size": 2, "group": group}
        with Communicator(master.address, min_islands=2, config=QUICK, **options) as comm:
            assert comm.world_size == 2 and comm.islands == 2
            assert len(comm.peers()) == 4
            results[index] = (play(comm, index), comm.id, [(p.island, p.group) for p in comm.peers()])
            comm.barrier(scope="run")

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    ids = {index: results[index][1] for index in range(4)}
    assert set(results[0][0]) == {ids[0], ids[2]} and set(results[1][0]) == {ids[1], ids[3]}
    assert sorted(results[0][2]) == [("island-0", 0), ("island-0", 1), ("island-1", 0), ("island-1", 1)]


MISMATCHES: list[tuple[Any, Any, dict[str, Any], dict[str, Any]]] = [
    (np.ones(1000, np.float32), np.ones(2000, np.float32), {}, {}),
    (np.ones(8, np.float32), np.ones(8, np.int32), {}, {}),
    (np.ones(8), np.ones(8), {"op": "sum"}, {"op": "max"}),
    (np.ones(8), [np.ones(4), np.ones(4)], {}, {}),
    (np.ones(8), np.ones(8), {"op": "avg", "weight": 1.0}, {"op": "avg"}),
    (np.ones(300_000), np.ones(300_001), {}, {}),
    (np.ones(8), np.ones(8), {"on_loss": "raise"}, {}),
]


@pytest.mark.parametrize(("one", "other", "first", "second"), MISMATCHES)
def test_a_mismatch_reaches_everybody(
    master: Master, one: Any, other: Any, first: dict[str, Any], second: dict[str, Any]
) -> None:
    def play(comm: Communicator, index: int) -> str:
        with pytest.raises(MismatchError) as caught:
            comm.all_reduce(other if comm.rank == 1 else one, **(second if comm.rank == 1 else first))
        comm.all_reduce(np.ones(3))  # and the next one works
        return str(caught.value)

    for text in together(master.address, 3, play):
        assert "peer" in text, text


def test_different_roots_are_a_mismatch(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        with pytest.raises(MismatchError):
            comm.broadcast(np.ones(3), comm.rank)

    together(master.address, 2, play)


def test_a_root_that_leaves(master: Master) -> None:
    """Nobody else has its tensors, so there is nothing to retry."""

    def play(comm: Communicator, index: int) -> None:
        if comm.rank == 0:
            time.sleep(0.3)
            return
        array = np.ones(100_000)
        with pytest.raises(PeerLost, match="root"):
            comm.broadcast(array, 0)
        assert np.all(array == 1)
        comm.all_reduce(array)

    together(master.address, 3, play)


def test_calls_that_can_never_meet(master: Master) -> None:
    def play(comm: Communicator, index: int) -> str:
        with pytest.raises(OrderError) as caught:
            if comm.rank:
                comm.all_reduce(np.ones(3))
            else:
                comm.update_topology()
        comm.all_reduce(np.ones(3), tag=1)
        return str(caught.value)

    for text in together(master.address, 2, play):
        assert "all_reduce" in text and "update_topology" in text


def test_update_topology_with_an_operation_in_flight(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        if comm.rank == 0:
            work = comm.all_reduce(np.ones(3), async_op=True)
            with pytest.raises(UsageError, match="in flight"):
                comm.update_topology()
            comm.barrier(tag=7)
            work.wait()
        else:
            comm.barrier(tag=7)
            comm.all_reduce(np.ones(3))

    together(master.address, 2, play)


def test_a_timeout_ends_it_on_every_peer(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            with pytest.raises(OperationTimeout, match="all_reduce"):
                comm.all_reduce(array, timeout=0.2)
            with pytest.raises(TimeoutError):
                comm.all_reduce(array, timeout=0.2, tag=5)
        else:
            time.sleep(0.6)
            for tag in (None, 5):
                with pytest.raises(OperationTimeout):
                    comm.all_reduce(array, tag=tag)
        assert np.all(array == 1)
        comm.all_reduce(array)
        assert np.all(array == 2)

    together(master.address, 2, play)


def test_waiting_for_a_while_leaves_it_running(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            work = comm.all_reduce(array, async_op=True)
            with pytest.raises(OperationTimeout, match="still runs after 0.1 s"):
                work.wait(0.1)
            assert not work.is_completed() and work.info is None
            assert "running" in repr(work)
            comm.barrier(tag=1)
            assert work.wait(20).attempts == 1
            assert "committed" in repr(work)
        else:
            comm.barrier(tag=1)
            comm.all_reduce(array)
        assert np.all(array == 2)

    together(master.address, 2, play)


def test_cancel(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            work = comm.all_reduce(array, async_op=True)
            work.cancel()
            for _ in range(2):
                with pytest.raises(Cancelled):
                    work.wait()
            assert work.info is None and "failed" in repr(work)
        else:
            with pytest.raises(Cancelled):
                comm.all_reduce(array)
        assert np.all(array == 1)
        comm.all_reduce(array)
        assert np.all(array == 2)

    together(master.address, 2, play)


def test_the_work_keeps_tensors_alive(master: Master) -> None:
    """Tensors and list are the caller's to forget; the result goes to memory that still exists."""

    def play(comm: Communicator, index: int) -> None:
        works = []
        for tag in range(20):
            tensors = [np.ones(50_000), torch.ones(50_000)]
            works.append(comm.all_reduce(tensors, tag=tag, async_op=True))
            tensors.clear()
        trash = [np.full(50_000, 7.0) for _ in range(40)]
        for work in works:
            work.wait()
        assert all(np.all(array == 7) for array in trash)

    together(master.address, 2, play)


def test_leaving_with_operations_in_flight(master: Master) -> None:
    """They end here; the others repeat them without the one that left."""

    def play(comm: Communicator, index: int) -> None:
        array = np.ones(3)
        if comm.rank == 0:
            work = comm.all_reduce(array, async_op=True)
            time.sleep(0.1)
            comm.leave()
            comm.leave()
            with pytest.raises(ClosedError):
                work.wait()
            with pytest.raises(ClosedError):
                comm.all_reduce(array)
            with pytest.raises(ClosedError):
                comm.rejoin()
        else:
            time.sleep(0.3)
            assert len(comm.all_reduce(array).contributors) == 2
            assert np.all(array == 2)

    together(master.address, 3, play)


def test_a_joiner_and_the_waiting_number(master: Master) -> None:
    with Communicator(master.address, config=QUICK) as first:
        joined: list[Any] = []

        def join() -> None:
            with Communicator(master.address, config=QUICK) as comm:
                array = np.full(3, 10.0)
                joined.append((comm.rank, comm.all_reduce(array), array[0]))

        thread = threading.Thread(target=join)
        thread.start()
        while not first.waiting:
            time.sleep(0.005)
        info = first.all_reduce(np.ones(3), scope="run")
        assert len(info.contributors) == 1
        assert first.update_topology() is True
        assert (first.waiting, first.world_size) == (0, 2)
        array = np.ones(3)
        assert first.all_reduce(array).waiting == 0
        thread.join(20)
        assert joined[0][0] == 1 and joined[0][2] == 11 == array[0]


SURVIVE = """
comm = Communicator(address, min_islands=3, config=config)
step = 0
while True:
    array = np.full(int(sys.argv[2]), 10.0 ** comm.rank)
    info = comm.all_reduce(array, on_loss=sys.argv[3])
    step += 1
    if step == 10: say("ready", comm.rank, comm.id)
"""


@pytest.mark.parametrize("count", [100, 1 << 20])
@pytest.mark.parametrize("on_loss", ["retry", "raise"])
def test_a_killed_peer_costs_one_repetition(master: Master, spawn: Spawn, count: int, on_loss: str) -> None:
    """The survivors' results hold exactly the survivors' contributions, in place, at every step."""
    victim = spawn("-c", PEER + SURVIVE, master.address, str(count), on_loss)
    killed = threading.Event()

    def play(comm: Communicator, index: int) -> tuple[int, int]:
        lost = after = 0
        deadline = time.monotonic() + 40
        while after < 20 and time.monotonic() < deadline:
            array = np.full(count, 1.0)
            digit = {peer.id: 10.0**peer.rank for peer in comm.peers()}[comm.id]
            array[:] = digit
            try:
                info = comm.all_reduce(array, on_loss=on_loss)  # type: ignore[call-overload]
            except Exception as error:
                assert type(error).__name__ == "PeerLost" and np.all(array == digit)
                lost += 1
                continue
            assert np.all(array == array[0])
            if len(info.contributors) == 3:
                assert array[0] == 111, array[0]
            else:
                after += 1
                assert array[0] in (101, 110, 11), array[0]
            if index == 0 and not killed.is_set() and expect_now.is_set():
                victim.kill()
                killed.set()
        return lost, after

    expect_now = threading.Event()

    def watch() -> None:
        expect(victim, "ready")
        expect_now.set()

    threading.Thread(target=watch, daemon=True).start()
    results: list[Any] = []

    def member(index: int) -> None:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            results.append(play(comm, index))

    threads = [threading.Thread(target=member, args=(index,), daemon=True) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert [after for _, after in results] == [20, 20]
    assert on_loss == "raise" or not any(lost for lost, _ in results)


SLEEPER = """
comm = Communicator(address, min_islands=2, config=config)
say("member", comm.id)
sys.stdin.readline()
try:
    while True:
        comm.all_reduce(np.ones(3)); time.sleep(0.01)
except Evicted as error:
    say("evicted", error)
comm.rejoin(timeout=20)
state = SharedState({"x": np.zeros(3)})
comm.sync_shared_state(state)
say("back", comm.rank, comm.world_size, state.tensors["x"][0], state.revision)
"""


def test_rejoin_after_eviction(master: Master, spawn: Spawn) -> None:
    """A peer that is stopped for longer than its heartbeats may fail is told, and comes back as a new one."""
    import signal
    import subprocess

    stopped = spawn("-c", PEER + SLEEPER, master.address, stdin=subprocess.PIPE)
    with Communicator(master.address, min_islands=2, config=QUICK) as comm:
        expect(stopped, "member")
        stopped.send_signal(signal.SIGSTOP)
        array = np.ones(3)
        comm.all_reduce(array)  # returns when the other one is evicted
        assert np.all(array == 1)
        stopped.send_signal(signal.SIGCONT)
        assert stopped.stdin is not None
        stopped.stdin.write("\n")
        stopped.stdin.flush()
        assert expect(stopped, "evicted")
        comm.wait_for(2, timeout=20)
        comm.sync_shared_state(SharedState({"x": np.full(3, 5.0)}, 4))
        assert expect(stopped, "back") == "1 2 5.0 4"


def test_rejoin_of_a_member_is_refused(master: Master) -> None:
    with Communicator(master.address) as comm, pytest.raises(UsageError, match="this one is a member"):
        comm.rejoin()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"quantization": "int8"}, "quantization='int8' waits for the quantized data plane"),
        ({"algorithm": "direct"}, "algorithm='direct' waits for more plans"),
    ],
)
def test_not_built_yet(master: Master, arguments: Any, text: str) -> None:
    with Communicator(master.address) as comm, pytest.raises(NotBuilt, match=text):
        comm.all_reduce(np.ones(3), **arguments)


def test_keepers_are_not_built_yet(master: Master) -> None:
    with pytest.raises(NotBuilt, match="in-memory snapshots"):
        Communicator(master.address, role="keeper")


def test_collected_without_leaving(master: Master) -> None:
    """A communicator that is only forgotten leaves the run as well."""
    comm = Communicator(master.address, config=QUICK)
    assert len(master.status()["peers"]) == 1
    del comm
    deadline = time.monotonic() + 5
    while master.status()["peers"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert master.status()["peers"] == []
