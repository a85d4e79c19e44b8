"""Between peers of one host: every way that a chunk can travel gives the same bits, and none is an error."""

from __future__ import annotations

import gc
import hashlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pccl_py
from pccl_py import Communicator, Master, PeerLost, UsageError
from pccl_py.shared import shared_bytes
from pccl_py.tensors import DTYPE_CODES
from tests.conftest import Spawn
from tests.threads import in_threads

from .exact import OPS, assert_equal, contribution, expected
from .peers import PEER, QUICK, expect, together

MIB = 1 << 20
# By peer: the transport that it asks for. "shm" and "auto" have their tensors in shared memory here.
GROUPS = {
    "tcp": ["tcp"] * 3,
    "cma": ["cma"] * 3,
    "shm": ["shm"] * 3,
    "auto": ["auto"] * 3,
    "one by tcp": ["auto", "tcp", "cma"],
    "each another": ["cma", "shm", "auto"],
}
groups = pytest.mark.parametrize("group", list(GROUPS))


def play_group(
    master: Master, group: str, play: Callable[[Communicator, str], Any], size: int = 3
) -> list[Any]:
    """`play(comm, transport)` on peers of that group, in the order of ranks."""

    def member(transport: str) -> tuple[int, Any]:
        options: dict[str, Any] = {"min_islands": size, "config": QUICK, "transport": transport}
        with Communicator(master.address, **options) as comm:
            return comm.rank, play(comm, transport)

    results = in_threads([partial(member, transport) for transport in GROUPS[group][:size]], 50)
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


def placed(tensor: Any, transport: str) -> Any:
    return pccl_py.share(tensor) if transport in ("shm", "auto") else tensor


def digest(tensor: Any) -> str:
    return hashlib.sha256(
        torch.as_tensor(tensor).contiguous().view(torch.uint8).numpy().tobytes()
    ).hexdigest()


@groups
@pytest.mark.parametrize("algorithm", ["ring", "direct"])
def test_every_dtype_and_op(master: Master, group: str, algorithm: Any) -> None:
    """In and out of place, in chunks that are large enough to be read where they lie."""

    def play(comm: Communicator, transport: str) -> None:
        for name in DTYPE_CODES:
            count = 3 * 4 * 2 * (64 << 10) // getattr(torch, name).itemsize + 5
            for op in OPS if name in ("float32", "bfloat16") else ["sum"]:
                tensor = placed(contribution(name, comm.rank, count), transport)
                out = placed(torch.zeros_like(tensor), transport)
                comm.all_reduce(tensor, op, out=out, algorithm=algorithm)
                assert torch.equal(tensor, contribution(name, comm.rank, count)), "the input was changed"
                comm.all_reduce(tensor, op, algorithm=algorithm)
                assert_equal(out, expected(name, op, count, 3), name, op)
                assert torch.equal(out, tensor)

    play_group(master, group, play)


def bits_of_everything(comm: Communicator, transport: str) -> list[str]:
    """Random values, so that another order of addition shows."""
    rank, count, found = comm.rank, 3 * MIB // 4 + 7, list[str]()
    own = torch.from_numpy(np.random.default_rng(rank).standard_normal(count).astype(np.float32))
    for algorithm in ("ring", "direct", "auto"):
        for dtype in (torch.float32, torch.bfloat16):
            for weight in (None, 0.25 + rank):
                tensor = placed(own.to(dtype, copy=True), transport)
                comm.all_reduce(tensor, "avg", algorithm=algorithm, weight=weight)
                found.append(digest(tensor))
    for kind in ("int8", "int4", "bf16"):
        tensor = placed(own.clone(), transport)
        comm.all_reduce(tensor, "avg", quantization=kind)
        found.append(digest(tensor))
    block = placed(own[: MIB // 4].clone(), transport)
    gathered = placed(torch.zeros(3, MIB // 4), transport)
    comm.all_gather(block, gathered)
    found.append(digest(gathered))
    comm.all_to_all(placed(gathered * (rank + 1), transport), gathered)
    found.append(digest(gathered))
    part = placed(torch.zeros(MIB // 4), transport)
    comm.reduce_scatter(gathered, part)
    found.append(digest(part))
    tensor = placed(own.clone(), transport)
    comm.broadcast(tensor, root=1)
    found.append(digest(tensor))
    return found


@pytest.mark.parametrize("group", [name for name in GROUPS if name != "tcp"])
def test_the_same_bits_as_by_tcp(group: str) -> None:
    """Where the plan is the same: "auto" is another one where all are on one host, so it is left out."""
    with Master(config=QUICK) as one, Master(config=QUICK) as other:
        by_tcp = play_group(one, "tcp", bits_of_everything)
        found = play_group(other, group, bits_of_everything)
    for rank in range(3):
        named = [bits for place, bits in enumerate(found[rank]) if not 8 <= place < 12]
        assert named == [bits for place, bits in enumerate(by_tcp[rank]) if not 8 <= place < 12]
        assert found[rank][8:12] == found[0][8:12]  # on all peers, by whatever plan


def test_peers_say_how_chunks_leave(master: Master) -> None:
    def play(comm: Communicator, transport: str) -> dict[int, str]:
        comm.all_reduce(np.ones(MIB, np.float32), algorithm="direct")
        until = time.monotonic() + 20
        found: dict[int, str] = {}
        while list(found.values()) != ["shm+cma"] * 2 and time.monotonic() < until:  # links ask each other
            found = {p.rank: p.link.transport for p in comm.peers() if p.link is not None}
            time.sleep(0.01)
        comm.barrier()
        return found

    by_rank = dict(enumerate(play_group(master, "auto", play)))
    assert by_rank == {
        0: {1: "shm+cma", 2: "shm+cma"},
        1: {0: "shm+cma", 2: "shm+cma"},
        2: dict.fromkeys((0, 1), "shm+cma"),
    }


def test_unknown_transport() -> None:
    with pytest.raises(UsageError, match="auto, tcp, shm or cma"):
        Communicator("127.0.0.1:1", transport="rdma")


# ---- memory ------------------------------------------------------------------------------------------------


def test_views_and_slices_are_read_in_place(master: Master) -> None:
    """Only places are sent: the link carries some KiB for a tensor of MiB."""

    def play(comm: Communicator, transport: str) -> int:
        whole = pccl_py.zeros((5, MIB // 4))
        whole[1:4] = comm.rank + 1
        out = pccl_py.zeros((3, MIB // 4))
        comm.all_reduce(whole[1:4], out=out)
        assert np.all(out == 6) and not whole[0].any() and not whole[4].any()
        return sum(p.link.bytes_sent for p in comm.peers() if p.link is not None)

    assert all(sent < 64 << 10 for sent in play_group(master, "shm", play))


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:pccl")


def test_memory_is_freed_and_unmapped(master: Master) -> None:
    gc.collect()
    before, mapped = shared_bytes(), mappings()

    def play(comm: Communicator, transport: str) -> None:
        tensor = pccl_py.zeros(MIB)
        view = torch.from_numpy(tensor)[10:]
        comm.all_reduce(tensor)
        del tensor
        assert shared_bytes() > before  # the view holds it
        del view
        gc.collect()
        comm.barrier()
        deadline = time.monotonic() + 10
        while mappings() > mapped and time.monotonic() < deadline:
            time.sleep(0.05)

    play_group(master, "auto", play)
    assert (shared_bytes(), mappings()) == (before, mapped)


@pytest.mark.parametrize("like", ["numpy", "torch"])
def test_tensors_in_shared_memory(like: Any) -> None:
    for dtype in ("float32", "uint8", "int64"):
        for shape in ((), 7, (0, 3), (3, 5), (600, 1000)):
            tensor = pccl_py.empty(shape, dtype, like=like)
            wanted = (shape,) if isinstance(shape, int) else shape
            assert tuple(tensor.shape) == wanted
            assert str(tensor.dtype).removeprefix("torch.") == dtype
            assert not np.asarray(tensor).any()
            tensor[...] = 3
            assert np.all(np.asarray(tensor) == 3)
    assert pccl_py.empty(4, torch.bfloat16).dtype is torch.bfloat16
    assert pccl_py.empty(4, np.float64, like="torch").dtype is torch.float64
    copy = pccl_py.share(torch.arange(6).reshape(2, 3))
    assert copy.tolist() == [[0, 1, 2], [3, 4, 5]]
    for wrong in (
        {"shape": -1},
        {"shape": 1.5},
        {"shape": 1, "dtype": "float31"},
        {"shape": 1, "like": "jax"},
    ):
        with pytest.raises(UsageError):
            pccl_py.empty(**wrong)  # type: ignore[arg-type]


def test_small_tensors_share_a_segment() -> None:
    """Thousands of them cost neither descriptors nor mappings."""
    before = len(os.listdir("/proc/self/fd"))
    tensors = [pccl_py.zeros(100) for _ in range(5000)]
    for index, tensor in enumerate(tensors):
        tensor[:] = index
    assert all(np.all(tensor == index) for index, tensor in enumerate(tensors))
    assert len(os.listdir("/proc/self/fd")) - before <= 2
    del tensors, tensor
    gc.collect()


def test_more_tensors_than_segments() -> None:
    tensors = [pccl_py.zeros(MIB // 4) for _ in range(300)]  # the last ones are private memory
    for index, tensor in enumerate(tensors):
        tensor[:] = index
    assert all(tensor[-1] == index for index, tensor in enumerate(tensors))


FORKED = """
tensor = pccl_py.zeros(1 << 20)
if os.fork() == 0:
    tensor[0] = 5
    del tensor
    other = pccl_py.zeros(1 << 20)
    with Communicator(address, min_islands=1, config=config) as comm:
        comm.all_reduce(other)
    os._exit(0)
assert os.wait()[1] == 0
assert tensor[0] == 5
with Communicator(address, min_islands=1, config=config) as comm:
    comm.all_reduce(tensor)
say("fine", tensor[0])
"""


def test_forked_children(master: Master, spawn: Spawn) -> None:
    """A child shares the memory, drops it without harm, and makes its own."""
    assert expect(spawn("-c", PEER + FORKED, master.address), "fine") == "5.0"


# ---- faults ------------------------------------------------------------------------------------------------

SURVIVE = """
kind, count = sys.argv[2], int(sys.argv[3])
comm = Communicator(address, min_islands=3, config=config, transport=kind)
make = pccl_py.empty if kind == "shm" else np.empty
tensor, step = make(count, "float64"), 0
while True:
    tensor[:] = 10.0 ** comm.rank
    try: comm.all_reduce(tensor, on_loss="raise")
    except PeerLost: continue
    step += 1
    if step == 2: say("ready")
"""


def survive(master: Master, victim: Any, kind: str, stop: signal.Signals) -> list[int]:
    """Two that reduce with the victim, and without it when it is gone: how often each did so alone."""

    def survivor(index: int) -> int:
        with Communicator(master.address, min_islands=3, config=QUICK, transport=kind) as comm:
            own, after = 10.0**comm.rank, 0
            tensor = pccl_py.empty(2 * MIB, "float64") if kind == "shm" else np.empty(2 * MIB)
            deadline = time.monotonic() + 40
            while after < 5 and time.monotonic() < deadline:
                tensor[:] = own
                try:
                    contributors = len(comm.all_reduce(tensor, on_loss="raise").contributors)
                except PeerLost:
                    assert np.all(tensor == own), "the input was changed"
                    continue
                assert np.all(tensor == tensor[0])
                assert tensor[0] in ([111] if contributors == 3 else [11, 101, 110])
                after += contributors == 2
            return after

    def watch() -> None:
        expect(victim, "ready")
        time.sleep(random.random() * 0.05)  # anywhere in an operation
        victim.send_signal(stop)

    results: list[int] = in_threads([partial(survivor, 0), partial(survivor, 1), watch], 60)
    return results[:2]


@pytest.mark.stops_peers
@pytest.mark.parametrize("kind", ["cma", "shm"])
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_peer_costs_one_repetition(
    master: Master, spawn: Spawn, kind: str, stop: signal.Signals
) -> None:
    """Killed, and stopped until it is evicted: every result is a sum of whole contributions."""
    victim = spawn("-c", PEER + SURVIVE, master.address, kind, str(2 * MIB))
    assert survive(master, victim, kind, stop) == [5, 5]


# Two users who may not read each other's memory; without root, one that does not let anybody read it.
STRANGERS = """
import ctypes, numpy.ma  # what numpy loads late may lie where the other user cannot read
own = int(sys.argv[2])
if os.getuid() == 0: os.setgid(60000 + own); os.setuid(60000 + own)
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
with Communicator(address, min_islands=2, config=config) as comm:
    for make in (np.ones, pccl_py.zeros):
        tensor = make(1 << 20)
        tensor[:] = own
        comm.all_reduce(tensor, algorithm="direct")
        assert np.all(tensor == 3), tensor
    comm.barrier()
    say("transport", *(p.link.transport for p in comm.peers() if p.link))
    sys.stdin.readline()
"""


def test_memory_that_cannot_be_read_is_sent(master: Master, spawn: Spawn) -> None:
    peers = [spawn("-c", PEER + STRANGERS, master.address, str(i), stdin=subprocess.PIPE) for i in (1, 2)]
    assert [expect(peer, "transport") for peer in peers] == ["tcp", "tcp"]
    for peer in peers:
        peer.stdin.write("\n")
        peer.stdin.flush()
        assert peer.wait(20) == 0


# Of one user, who takes the permission back between two operations.
WITHDRAWN = """
import ctypes, numpy.ma  # as above
own = int(sys.argv[2])
libc = ctypes.CDLL(None)
if os.getuid() == 0: os.setgid(60000); os.setuid(60000)
libc.prctl(4, 1, 0, 0, 0)
with Communicator(address, min_islands=2, config=config, transport="cma") as comm:
    tensor, ways = np.empty(1 << 20), []
    for turn in range(6):
        if turn == 3 and own == 1: libc.prctl(4, 0, 0, 0, 0)
        comm.barrier()
        tensor[:] = own
        comm.all_reduce(tensor, algorithm=["direct", "ring"][turn % 2])
        assert np.all(tensor == 3), tensor
        ways += [p.link.transport for p in comm.peers() if p.link]
    comm.barrier()
    say("transport", ways[0], ways[-1])
    comm.barrier()
"""


def test_memory_that_cannot_be_read_any_more(master: Master, spawn: Spawn) -> None:
    """The chunks in question are sent after all, in the same attempt, and from then on all others."""
    peers = [spawn("-c", PEER + WITHDRAWN, master.address, str(i)) for i in (1, 2)]
    assert [expect(peer, "transport") for peer in peers] == ["cma tcp", "cma cma"]


# The same between two synchronizations of a state that only the first of them has.
STATE_WITHDRAWN = """
import ctypes
own = int(sys.argv[2])
libc = ctypes.CDLL(None)
if os.getuid() == 0: os.setgid(60000); os.setuid(60000)
libc.prctl(4, 1, 0, 0, 0)
with Communicator(address, min_islands=2, config=config, transport="cma") as comm:
    comm.barrier()
    received = []
    for turn in range(2):
        wanted = np.arange(6 << 18, dtype=np.float32) + turn
        state = pccl_py.SharedState({"w": wanted.copy() if own == 1 else np.zeros_like(wanted)}, 2 - own)
        if turn == 1 and own == 1: libc.prctl(4, 0, 0, 0, 0)
        received.append(comm.sync_shared_state(state).bytes_received)
        assert np.array_equal(state.tensors["w"], wanted)
    comm.barrier()
    say("received", *received)
"""


def test_blocks_of_a_state_that_cannot_be_read_any_more(master: Master, spawn: Spawn) -> None:
    peers = [spawn("-c", PEER + STATE_WITHDRAWN, master.address, str(i)) for i in (1, 2)]
    whole = 6 * MIB + 6 * 16  # and the digests of its chunks
    assert [expect(peer, "received") for peer in peers] == ["0 0", f"{whole} {whole}"]


@pytest.mark.parametrize("group", list(GROUPS))
def test_a_state_arrives_by_every_way(master: Master, group: str) -> None:
    wanted = np.arange(5 << 17, dtype=np.float64)

    def play(comm: Communicator, transport: str) -> tuple[int, ...]:
        tensor = placed(wanted.copy() if comm.rank < 2 else np.zeros_like(wanted), transport)
        info = comm.sync_shared_state(pccl_py.SharedState({"w": tensor}, int(comm.rank < 2)))
        assert np.array_equal(tensor, wanted)
        return info.bytes_received, len(info.donors)

    assert play_group(master, group, play) == [(0, 0), (0, 0), (5 * MIB + 5 * 16, 2)]


def test_mixed_threads_and_sizes(master: Master) -> None:
    """Several operations at a time, some by place and some as bytes."""

    def play(comm: Communicator, index: int) -> None:
        tensors = [
            np.full(size, index + 1.0, np.float32) for size in (1, 1000, 1 << 16, 1 << 20, (1 << 20) + 3)
        ]
        tensors += [pccl_py.zeros(size) + (index + 1.0) for size in (5, 1 << 18)]
        shared = pccl_py.zeros(1 << 20)
        shared[:] = index + 1.0
        works = [comm.all_reduce(t, tag=i, async_op=True) for i, t in enumerate([*tensors, shared])]
        for work in works:
            work.wait()  # type: ignore[union-attr]
        assert all(np.all(t == 10) for t in [*tensors, shared])

    together(master.address, 4, play)
