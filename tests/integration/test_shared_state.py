"""sync_shared_state over the real core: what is elected, what travels, any dtype and stride, deaths."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from pccl_py import Communicator, Master, MismatchError, OperationTimeout, SharedState, SyncInfo, UsageError
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, QUICK, expect, together

MIB = 1 << 20


def test_in_sync_costs_no_bytes(master: Master) -> None:
    def play(comm: Communicator, index: int) -> SyncInfo:
        state = SharedState({"w": np.arange(3 * MIB, dtype=np.float32), "b": torch.ones(3)}, 5)
        info = comm.sync_shared_state(state)
        assert state.revision == 5
        return info

    for info in together(master.address, 3, play):
        assert (info.bytes_sent, info.bytes_received, info.donors, info.revision) == (0, 0, (), 5)
        assert len(info.contributors) == 3 and info.attempts == 1


def test_one_float_off_moves_one_chunk(master: Master) -> None:
    def play(comm: Communicator, index: int) -> tuple[int, SyncInfo, bytes]:
        array = np.arange(16 * MIB, dtype=np.float32)
        rank = comm.rank
        if rank == 2:
            array[9_000_000] += 1
        state = SharedState({"w": array}, 7 if rank < 2 else 6)
        return rank, comm.sync_shared_state(state), state.digest()

    results = {rank: (info, digest) for rank, info, digest in together(master.address, 3, play)}
    assert len({digest for _, digest in results.values()}) == 1
    hashes = 64 * 16
    assert results[2][0].bytes_received == MIB + hashes
    assert sum(results[rank][0].bytes_sent for rank in (0, 1)) == MIB + hashes
    assert results[0][0].bytes_received == results[2][0].bytes_sent == 0


@pytest.mark.parametrize("revision", [0, 2**64 - 1])
def test_the_highest_revision_wins_and_is_taken_over(master: Master, revision: int) -> None:
    def play(comm: Communicator, index: int) -> tuple[int, float]:
        newest = comm.rank == 2
        state = SharedState(
            {"x": np.full(10, comm.rank)}, revision if newest or not revision else revision - 1
        )
        comm.sync_shared_state(state)
        return state.revision, state.tensors["x"][0]

    wanted = 2 if revision else 0  # without a newer one, the smallest id among equally popular contents
    assert together(master.address, 3, play) == [(revision, wanted)] * 3


def test_the_most_popular_content_wins_a_tie(master: Master) -> None:
    def play(comm: Communicator, index: int) -> float:
        state = SharedState({"x": np.full(10, float(min(comm.rank, 1)))}, 3)
        comm.sync_shared_state(state)
        return float(state.tensors["x"][0])

    assert together(master.address, 3, play) == [1.0] * 3


def test_strategies(master: Master) -> None:
    def play(comm: Communicator, index: int) -> list[float]:
        rank, found = comm.rank, []
        popular = "enforce_popular"
        for strategies in (("receive_only", popular, popular), (popular, popular, "send_only")):
            state = SharedState({"x": np.full(10, float(rank))}, 9 if rank == 0 else 1)
            comm.sync_shared_state(state, strategies[rank])  # type: ignore[arg-type]
            found.append(float(state.tensors["x"][0]))
            assert state.revision == 1
        return found

    assert together(master.address, 3, play) == [[1.0, 2.0]] * 3


def test_everybody_receives_only(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        with pytest.raises(MismatchError, match="receive_only"):
            comm.sync_shared_state(SharedState({"x": np.zeros(3)}), "receive_only")

    together(master.address, 2, play)


def many(fill: int) -> dict[str, Any]:
    """Every kind of memory: dtypes that the core knows and others, odd addresses, strides, no elements."""
    raw = np.zeros(4001, np.uint8)
    tensors: dict[str, Any] = {
        "unaligned": raw[1:].view(np.float32),
        "strided": np.zeros((50, 50, 2), np.int16)[:, :, 1],
        "transposed": torch.zeros(40, 30).t(),
        "scalar": np.zeros(()),
        "nothing": np.zeros((0, 3)),
        "large": np.zeros(3 * MIB + 5, np.uint8),
        "parameter": torch.nn.Linear(8, 8).weight,
    }
    for dtype in (torch.bool, torch.complex64, torch.float8_e4m3fn, torch.bfloat16, torch.int8):
        tensors[f"torch {dtype}"] = torch.zeros(33, dtype=dtype)
    for name in ("float16", "uint32", "bool", "complex128", ">f8"):
        tensors[f"numpy {name}"] = np.zeros(17, name)
    for tensor in tensors.values():
        with torch.no_grad():
            tensor[...] = torch.full((), fill).to(tensor.dtype) if isinstance(tensor, torch.Tensor) else fill
    return tensors


def test_any_dtype_alignment_and_stride(master: Master) -> None:
    wanted = SharedState(many(1)).digest()

    def play(comm: Communicator, index: int) -> tuple[bytes, Any]:
        rank = comm.rank
        tensors = many(1 if rank == 0 else 0)
        if rank == 1:
            tensors = dict(reversed(tensors.items()))  # the order is not part of the agreement
        state = SharedState(tensors, 1 if rank == 0 else 0)
        comm.sync_shared_state(state)
        return state.digest(), float(tensors["strided"].sum())

    assert together(master.address, 3, play) == [(wanted, 2500.0)] * 3


DIFFERENT: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"x": np.zeros(3)}, {"y": np.zeros(3)}, r"names: 'x' \(float64\[3\]\) and 'y' \(float64\[3\]\)$"),
    ({"x": np.zeros(3)}, {"x": np.zeros(4)}, r"differ in 'x': float64\[3\] and float64\[4\]$"),
    ({"x": np.zeros((2, 3))}, {"x": np.zeros((3, 2))}, r"in 'x': float64\[2, 3\] and float64\[3, 2\]$"),
    ({"x": np.zeros(3, bool)}, {"x": np.zeros(3, np.uint8)}, r"differ in 'x': bool\[3\] and uint8\[3\]$"),
    ({"it's a[1]": np.zeros(())}, {"it's a[1]": np.zeros(2)}, r"differ in \"it's a\[1\]\": float64\[\] and"),
    ({"x": np.zeros(3)}, {"x": np.zeros(3), "y": np.zeros(1)}, "number of tensors"),
]


@pytest.mark.parametrize(("one", "other", "text"), DIFFERENT)
def test_layouts_that_differ_are_named(master: Master, one: Any, other: Any, text: str) -> None:
    def play(comm: Communicator, index: int) -> None:
        with pytest.raises(MismatchError, match=text):
            comm.sync_shared_state(SharedState(dict(one if comm.rank == 0 else other)))
        comm.all_reduce(np.ones(3))

    together(master.address, 2, play)


def test_alone(master: Master) -> None:
    with Communicator(master.address) as comm:
        state = SharedState({"x": np.arange(10)}, 3)
        info = comm.sync_shared_state(state)
        assert (info.bytes_sent, info.revision, info.contributors) == (0, 3, (comm.id,))
        assert np.array_equal(state.tensors["x"], np.arange(10))


def test_alone_again_and_again(master: Master) -> None:
    """Nothing of one that is over stays open at the master, which evicts who has too many."""
    with Communicator(master.address, config=QUICK) as comm:
        for revision in range(1, 30):
            assert comm.sync_shared_state(SharedState({"w": np.ones(9)}, revision)).revision == revision


def test_a_timeout_ends_it_for_all(master: Master) -> None:
    def play(comm: Communicator, index: int) -> None:
        state = SharedState({"x": np.zeros(3)})
        if comm.rank:
            time.sleep(0.5)
        with pytest.raises(OperationTimeout):
            comm.sync_shared_state(state, timeout=None if comm.rank else 0.2)
        assert comm.sync_shared_state(state).revision == 0

    together(master.address, 2, play)


def test_wrong_arguments(master: Master) -> None:
    with Communicator(master.address) as comm:
        state = SharedState({"x": np.zeros(3)})
        with pytest.raises(UsageError, match="strategy='newest': it is one of 'enforce_popular'"):
            comm.sync_shared_state(state, "newest")  # type: ignore[arg-type]
        array = np.zeros(3)
        broken = SharedState({"x": array})
        array.flags.writeable = False
        with pytest.raises(UsageError, match="read-only"):
            comm.sync_shared_state(broken)
        comm.all_reduce(np.ones(1))


def test_a_joiner_gets_the_state(master: Master) -> None:
    with Communicator(master.address, config=QUICK) as first:

        def join() -> tuple[SyncInfo, int, bytes]:
            with Communicator(master.address, config=QUICK) as comm:
                state = SharedState({"w": np.zeros(2 * MIB, np.float32)})
                return comm.sync_shared_state(state), state.revision, state.digest()

        def let_in() -> tuple[SyncInfo, int, bytes]:
            while not first.update_topology():
                time.sleep(0.005)
            state = SharedState({"w": np.arange(2 * MIB, dtype=np.float32)}, 41)
            return first.sync_shared_state(state), 41, state.digest()

        (received, *joined), (sent, *wanted) = in_threads([join, let_in])
        assert joined == wanted
        assert received.bytes_received == sent.bytes_sent >= 8 * MIB


DONOR = """
comm = Communicator(address, min_islands=3, config=config)
state = SharedState({"w": np.arange(64 << 18, dtype=np.float32)}, 9)
say("ready", comm.rank, comm.id)
comm.sync_shared_state(state)
say("survived")
time.sleep(60)
"""


@pytest.mark.parametrize("delay_ms", [0, 5, 15, 30])
def test_a_donor_that_dies_is_replaced(master: Master, spawn: Spawn, delay_ms: int) -> None:
    """Two donors and one that needs 64 MiB; one donor is killed some time after they have begun."""
    victim = spawn("-c", PEER + DONOR, master.address)
    wanted = SharedState({"w": np.arange(64 << 18, dtype=np.float32)}).digest()
    begun = threading.Event()

    def kill() -> None:
        expect(victim, "ready")
        begun.wait(30)
        time.sleep(delay_ms / 1000)
        victim.kill()

    def member(index: int) -> tuple[bytes, int]:
        with Communicator(master.address, min_islands=3, config=QUICK) as comm:
            array = np.arange(64 << 18, dtype=np.float32) if index == 0 else np.zeros(64 << 18, np.float32)
            state = SharedState({"w": array}, 9 if index == 0 else 0)
            begun.set()
            comm.sync_shared_state(state)
            comm.barrier()
            return state.digest(), state.revision

    assert in_threads([partial(member, 0), partial(member, 1), kill])[:2] == [(wanted, 9)] * 2


def test_scope_run_elects_an_island_not_ranks(master: Master) -> None:
    """All are equally new. Group 0 alone would take a's content, group 1 b's, whose rank came first there."""
    order = [("a", 0), ("b", 1), ("b", 0), ("a", 1)]
    come = [threading.Event() for _ in order]

    def play(index: int) -> tuple[str, int]:
        island, group = order[index]
        if index:
            come[index - 1].wait(20)
            time.sleep(0.1)
        come[index].set()
        options: Any = {"island": island, "island_size": 2, "group": group}
        with Communicator(master.address, min_islands=2, config=QUICK, **options) as comm:
            state = SharedState({"shard": np.full(10, ord(island), np.int64)})
            comm.sync_shared_state(state, scope="run")
            return chr(state.tensors["shard"][0]), comm.id

    found = in_threads([partial(play, index) for index in range(4)])
    assert [island for island, _ in found] == ["a"] * 4
    ids = [peer for _, peer in found]
    assert ids == sorted(ids)  # else the order was another one


def test_scope_run_synchronizes_each_group(master: Master) -> None:
    def play(index: int) -> tuple[int, int]:
        island, group = divmod(index, 2)
        options: Any = {"island": f"island-{island}", "island_size": 2, "group": group}
        with Communicator(master.address, min_islands=2, config=QUICK, **options) as comm:
            state = SharedState({"shard": np.full(10, 10 * island + group)}, 1 - island)
            comm.sync_shared_state(state, scope="run")
            return int(state.tensors["shard"][0]), state.revision

    assert in_threads([partial(play, index) for index in range(4)]) == [(0, 1), (1, 1), (0, 1), (1, 1)]
