"""How much of their time peers train while averages cross 100 ms and 100 Mbit/s; training is a sleep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .emulated import Inside, emulator
from .test_emulated_faults import MASTER

# MASTER KIND: its time of training as a share of that and of its waits, after the first two windows.
PEER = """
import json, sys, time, torch
from pccl_py import Communicator
from pccl_py.optim import AsyncDiLoCo, DiLoCo, StreamingDiLoCo
torch.set_num_threads(1)
kind, options = {
    "diloco": (DiLoCo, {}),
    "streaming": (StreamingDiLoCo, {"num_fragments": 2, "fragment_sync_delay": 9}),
    "async": (AsyncDiLoCo, {}),
}[sys.argv[2]]
model = torch.nn.ParameterDict({k: torch.nn.Parameter(torch.zeros(125_000)) for k in "ab"})
inner = torch.optim.SGD(model.parameters(), lr=0.1)
with Communicator(sys.argv[1], insecure=True, min_islands=2) as comm:
    with kind(comm, model, inner, sync_every=20, **options) as outer:
        for step in range(120):
            if step == 40:
                trained, waited = 0.0, outer.stats.wait_s
            before = time.monotonic()
            time.sleep(0.05)
            if step >= 40:
                trained += time.monotonic() - before
            for p in model.values():
                p.grad = torch.ones_like(p)
            inner.step()
        share = trained / (trained + outer.stats.wait_s - waited)
        outer.finalize()
print(json.dumps([share, outer.state_digest()]), flush=True)
"""


@pytest.mark.nightly
@pytest.mark.deadline(120)
def test_averages_that_overlap_leave_the_peers_training(inside: Inside) -> None:
    shares: dict[str, float] = {}
    with emulator(3, rtt_ms=100, rate_mbit=100) as net:
        for kind in ("async", "diloco", "streaming"):
            master = inside(net, 2, MASTER, net.addresses[2])
            assert master.stdout is not None
            address = master.stdout.readline().split()[1]
            peers = [inside(net, i, PEER, address, kind) for i in range(2)]
            found = [json.loads(peer.stdout.readline()) for peer in peers if peer.stdout is not None]
            assert found[0][1] == found[1][1]
            shares[kind] = min(share for share, _ in found)
            master.kill()
    assert shares["diloco"] < 0.85, shares
    assert shares["streaming"] >= 0.95 and shares["async"] >= 0.95, shares


# MASTER KIND FOLDER ISLAND RANK: the same on a rank of an island of two, which share the link and have a half
# of the parameters each.
RANK = """
import json, os, sys, time, torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from pccl_py.optim import AsyncDiLoCo, DiLoCo, StreamingDiLoCo
from pccl_py.parallel import Island
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
torch.set_num_threads(1)
kind, options = {
    "diloco": (DiLoCo, {}),
    "streaming": (StreamingDiLoCo, {"num_fragments": 2, "fragment_sync_delay": 9}),
    "async": (AsyncDiLoCo, {}),
}[sys.argv[2]]
folder, number, rank = sys.argv[3], sys.argv[4], int(sys.argv[5])
dist.init_process_group("gloo", init_method=f"file://{folder}/{sys.argv[2]}{number}", rank=rank, world_size=2)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(354, 354), torch.nn.Linear(354, 354))
model = fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
inner = torch.optim.SGD(model.parameters(), lr=0.01)
x = torch.ones(1, 354)
with Island(sys.argv[1], model, name=number, insecure=True, min_islands=2) as island:
    with kind(island, model, inner, sync_every=20, **options) as outer:
        for step in range(120):
            if step == 40:
                trained, waited = 0.0, outer.stats.wait_s
            before = time.monotonic()
            time.sleep(0.05)
            model(x).mean().backward()
            if step >= 40:
                trained += time.monotonic() - before
            inner.step()
            inner.zero_grad()
        share = trained / (trained + outer.stats.wait_s - waited)
        outer.finalize()
        print(json.dumps([share, outer.state_digest()]), flush=True)
"""


@pytest.mark.nightly
@pytest.mark.deadline(240)
def test_averages_that_overlap_leave_islands_training(inside: Inside, tmp_path: Path) -> None:
    shares: dict[str, float] = {}
    with emulator(3, rtt_ms=100, rate_mbit=100) as net:
        for kind in ("async", "diloco", "streaming"):
            master = inside(net, 2, MASTER, net.addresses[2])
            assert master.stdout is not None
            where = (master.stdout.readline().split()[1], kind, str(tmp_path))
            ranks = [inside(net, i, RANK, *where, str(i), str(rank)) for i in (0, 1) for rank in (0, 1)]
            found = [json.loads(rank.stdout.readline()) for rank in ranks if rank.stdout is not None]
            assert found[0][1] == found[2][1] and found[1][1] == found[3][1]
            shares[kind] = min(share for share, _ in found)
            master.kill()
    assert shares["diloco"] < 0.85, shares
    assert shares["streaming"] >= 0.95 and shares["async"] >= 0.95, shares
