"""Islands of FSDP ranks: what the ranks of test_islands.py do. Rank r is rank r % 2 of island r // 2."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

import pccl_py
from pccl_py import Communicator, Config
from pccl_py.optim import AsyncDiLoCo, DiLoCo, StreamingDiLoCo
from pccl_py.parallel import ElasticSampler, Island
from pccl_py.parallel.island_layout import local, local_shards

from .gang import say
from .plays_churn import die

SIZE = 2
ALONE_MAX = 700  # windows: longer than anybody who is to come takes on a busy machine
QUICK = Config(heartbeat_ms=100, heartbeats_missed_max=10)  # where a rank stops
CALM = Config(heartbeat_ms=100, heartbeats_missed_max=50)  # a busy machine makes nobody silent for so long


def join_island(rank: int, path: str, backend: str = "gloo", size: int = SIZE) -> tuple[str, int]:
    """Name of the island, and the place in it; torch.distributed then is this island's."""
    number, place = divmod(rank, SIZE)
    store = f"file://{path}-island{number}"
    dist.init_process_group(backend, init_method=store, rank=place, world_size=size)
    return "abcdef"[number], place


def net(seed: int, width: int = 12) -> torch.nn.Sequential:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, width), torch.nn.Tanh(), torch.nn.Linear(width, 3))


def sharded(model: Any, kind: str, **options: Any) -> Any:
    if kind == "fsdp1":
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    if kind == "fsdp1 parameters":
        return FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=True)
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in (model[0], model[2]):
        fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def batch(step: int, stream: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1000 * stream + step))
    return x, x[:, :3].sin()


def loss_of(model: Any, step: int, stream: int) -> torch.Tensor:
    x, y = batch(step, stream)
    loss: torch.Tensor = (model(x) - y).square().mean()
    return loss


def values(model: Any) -> list[float]:
    return torch.cat([shard.reshape(-1) for shard in local_shards(model).values()]).tolist()


def train(
    *,
    rank: int,
    ranks: int,
    path: str,
    address: str,
    kind: str = "fsdp2",
    backend: str = "gloo",
    founders: int = 2,
    steps: int = 6,
    victim: int = -1,
    at: str = "",
    step: int = 2,
) -> None:
    """Trains; `victim` dies in `step`. Islands from `founders` on come when an island is lost."""
    name, place = join_island(rank, path, backend)
    island_number = rank // SIZE
    model = sharded(net(island_number), kind)
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
    late = island_number >= founders
    while late and not Path(path + "-lost").exists():
        time.sleep(0.01)
    if late:
        name = "b"
    options: dict[str, Any] = {"config": CALM, "min_islands": 1 if late else founders}
    armed = [False]
    first = model if kind != "fsdp2" else model[0]
    first.register_forward_pre_hook(lambda *_: _die_if(armed[0] and at == "forward"))
    last = model if kind != "fsdp2" else model[2]
    last.register_full_backward_hook(lambda *_: _die_if(armed[0] and at == "backward"))
    try:
        with Island(address, model, inner, name=name, inner_timeout=20, join_timeout=60, **options) as island:
            wanted = ranks // SIZE - founders
            while island.steps < steps or (island.admissions < wanted and island.steps < 400):
                with island.step():
                    count = island.steps
                    armed[0] = rank == victim and count == step
                    loss = loss_of(model, count, rank)
                    loss.backward()
                    if armed[0] and at == "reduce":
                        die_in_the_next_reduction(island)
                    info = island.all_reduce_gradients()
                    _die_if(armed[0] and at == "optimizer")
                    inner.step()
                    inner.zero_grad()
                say(
                    step=count,
                    of=len(info.contributors),
                    digest=island.digest(),
                    loss=loss.item(),
                    islands=island.islands,
                )
                if wanted:
                    time.sleep(0.05)
            say(end=island.digest(), steps=island.steps, values=values(model))
    except pccl_py.IslandLost as error:
        Path(path + "-lost").touch()
        say(lost=str(error))
    os._exit(0)


def _die_if(dying: bool) -> None:
    if dying:
        die()


def die_in_the_next_reduction(island: Island) -> None:
    real = island.comm.all_reduce

    def dying(*tensors: Any, **options: Any) -> Any:
        threading.Timer(0.005, die).start()  # most often in the middle of it
        real(*tensors, **options)
        die()

    island.comm.all_reduce = dying  # type: ignore[method-assign,assignment]


def caught(call: Callable[..., Any], *args: Any, **options: Any) -> dict[str, Any]:
    started = time.monotonic()
    try:
        return {"value": repr(call(*args, **options))}
    except Exception as error:
        return {
            "error": str(error),
            "kind": type(error).__name__,
            "seconds": time.monotonic() - started,
        }


def pausing(*, rank: int, ranks: int, path: str, address: str, paused: list[int], hook: bool = False) -> None:
    """Some ranks of island b stop for longer than heartbeats may be missed: it is evicted, and lives.

    hook: gradients are averaged module by module, in the backward pass, and the stop is between two.
    """
    name, place = join_island(rank, path)
    model = sharded(net(rank // SIZE), "fsdp2")
    inner = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    contributors: list[int] = []
    stops = [rank in paused]

    def average(gradient: torch.Tensor) -> None:
        if contributors:
            stop_once(stops, island)
        contributors.append(len(island.all_reduce(gradient).contributors))

    for layer in (model, model[0], model[2]) if hook else ():
        layer.set_all_reduce_hook(average)
    with Island(address, model, inner, name=name, config=QUICK, min_islands=2, inner_timeout=20) as island:
        while island.steps < 6 or (island.admissions < 1 and island.steps < 400):
            with island.step():
                count = island.steps
                contributors.clear()
                loss_of(model, count, rank).backward()
                if not hook:
                    stop_once(stops, island)
                of = min(contributors) if hook else len(island.all_reduce_gradients().contributors)
                inner.step()
                inner.zero_grad()
                say(step=count, of=of)
            time.sleep(0.02)
        say(end=island.digest(), steps=island.steps, values=values(model))
    os._exit(0)


def stop_once(stops: list[bool], island: Island) -> None:
    if stops[0] and island.steps == 2:
        stops[0] = False
        stop_for(1.6)


def stop_for(seconds: float) -> None:
    subprocess.Popen(["sh", "-c", f"sleep {seconds}; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


def stuck(*, rank: int, ranks: int, path: str, address: str, inner_timeout: float) -> None:
    """Rank 3 stops for good while its sibling sits in a collective of the model."""
    name, place = join_island(rank, path)
    model = sharded(net(0), "fsdp2")
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    options: dict[str, Any] = {"config": QUICK, "min_islands": 2, "inner_timeout": inner_timeout}
    started = time.monotonic()
    try:
        with Island(address, model, inner, name=name, **options) as island:
            while island.steps < 5:
                with island.step():
                    started = time.monotonic()
                    if rank == 3 and island.steps == 2:
                        say(stops=True)
                        Path(path + "-pid").write_text(str(os.getpid()))
                        os.kill(os.getpid(), signal.SIGSTOP)
                    loss_of(model, island.steps, rank).backward()
                    island.all_reduce_gradients()
                    inner.step()
            say(end=island.digest())
    except pccl_py.IslandLost as error:
        say(lost=str(error), seconds=time.monotonic() - started)
        os.kill(int(Path(path + "-pid").read_text()), signal.SIGKILL)
    os._exit(0)


def windows(
    *,
    rank: int,
    ranks: int,
    path: str,
    address: str,
    kind: str,
    family: str = "diloco",
    victim: int = -1,
    at: str = "",
    paused: int = -1,
) -> None:
    """DiLoCo, or another one of its family, on islands. Islands from the third on come when one is lost."""
    name, place = join_island(rank, path)
    model = sharded(net(rank // SIZE), kind)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    late = rank // SIZE >= 2
    while late and not Path(path + "-lost").exists():
        time.sleep(0.01)
    options: dict[str, Any] = {
        "config": QUICK if paused >= 0 else CALM,
        "min_islands": 1 if late else 2,
        "inner_timeout": 20,
    }
    wanted, count, stopped = ranks > 2 * SIZE or paused >= 0, 0, False
    try:
        with Island(address, model, name="b" if late else name, **options) as island:
            make, more = FAMILY[family]
            with make(island, model, inner, sync_every=3, **more) as outer:
                say(begins=outer.windows)
                last_one = outer.windows + 2 if late else 6
                together = 0  # windows of both, once one had been gone
                while outer.windows < last_one or (wanted and together < 3 and outer.windows < ALONE_MAX):
                    if rank == victim and outer.windows == 2:
                        if at == "outer" and outer.pending_steps == 2:
                            die_in_the_next_reduction(island)
                        _die_if(at == "inner" and outer.pending_steps == 1)
                        _die_if(at == "flight" and outer._flight is not None)
                    ready = outer.windows == 2 and (family == "diloco" or outer._flight is not None)
                    if rank == paused and ready and not stopped:
                        stopped = True
                        stop_for(1.6)
                    loss_of(model, count, rank).backward()
                    count, before = count + 1, outer.windows
                    inner.step()
                    inner.zero_grad()
                    last = outer.stats.last
                    if last is not None and before < outer.windows == last.number:
                        together += outer.windows > 3 and len(last.contributors) == 2
                        say(window=last.number, of=len(last.contributors), digest=outer.state_digest())
                        if wanted:
                            time.sleep(0.05)
                outer.finalize()
            say(end=outer.state_digest(), rejoins=outer.stats.rejoins, values=values(model))
    except pccl_py.IslandLost as error:
        Path(path + "-lost").touch()
        say(lost=str(error))
    os._exit(0)


FAMILY: dict[str, tuple[Any, dict[str, Any]]] = {
    "diloco": (DiLoCo, {}),
    "streaming": (StreamingDiLoCo, {"num_fragments": 1, "fragment_sync_delay": 2, "quantization": "int8"}),
    "async": (AsyncDiLoCo, {}),
}


def dtensors(*, rank: int, ranks: int, path: str, address: str, family: str) -> None:
    """Parameters that are DTensors without FSDP: an uneven shard, an empty one, a copy on each rank; and
    plain ones, of which one is each rank's own. Island i is pulled to i + 1."""
    name, _ = join_island(rank, path)
    mesh = init_device_mesh("cpu", (SIZE,))
    layouts = {
        "uneven": (3, Shard(0)),
        "empty": (1, Shard(0)),
        "columns": (5, Shard(1)),
        "kept": (4, Replicate()),
    }
    model = torch.nn.ParameterDict()
    for key, (size, placement) in layouts.items():
        whole = torch.arange(2.0 * size).view(size, 2) if key != "columns" else torch.arange(15.0).view(5, 3)
        model[key] = torch.nn.Parameter(distribute_tensor(whole, mesh, [placement]))
    replicas = init_device_mesh("cpu", (SIZE, 1))
    model["hybrid"] = torch.nn.Parameter(
        distribute_tensor(torch.arange(6.0).view(3, 2), replicas, [Replicate(), Shard(0)])
    )
    model["plain"] = torch.nn.Parameter(torch.arange(6.0))
    model["own"] = torch.nn.Parameter(torch.arange(6.0) + 10 * (rank % SIZE))  # as a rank's expert
    inner = torch.optim.SGD(model.parameters(), lr=0.1, foreach=False)
    kind, options = FAMILY[family]
    with Island(address, model, name=name, config=CALM, min_islands=2, inner_timeout=20) as island:
        sampler = ElasticSampler(48, global_batch=12, overlapping=family != "diloco")  # of this rank's data
        share = []
        with kind(island, model, inner, sync_every=3, sampler=sampler, **options) as outer:
            for _ in range(12):
                share += outer.share()
                for p in model.values():
                    p.grad = p.detach() - (1 + rank // SIZE)
                inner.step()
            outer.finalize()
        say(share=share)
        parts = {key: model[key].to_local().flatten().tolist() for key in layouts}
        wholes = {key: model[key].full_tensor().tolist() for key in [*layouts, "hybrid"]}
        say(end=outer.state_digest(), parts=parts, wholes=wholes | {"plain": model["plain"].tolist()})
        say(own=model["own"].tolist())
    os._exit(0)


def copied_gradients(*, rank: int, ranks: int, path: str, address: str) -> None:
    """Copies of parameters on the ranks of an island. Each sums with its own peers: where their order is
    another, or blocks are quantized, a copy's last bits are; here they are made to be."""
    name, place = join_island(rank, path)
    mesh = init_device_mesh("cpu", (SIZE,))
    seeds = torch.Generator().manual_seed(place)
    model = torch.nn.ParameterDict()
    model["own"] = torch.nn.Parameter(torch.randn(41, generator=seeds))
    model["kept"] = torch.nn.Parameter(distribute_tensor(torch.arange(64.0).view(32, 2), mesh, [Replicate()]))
    model["plain"] = torch.nn.Parameter(torch.arange(33.0).to(torch.bfloat16))
    with Island(address, model, name=name, config=CALM, min_islands=2, inner_timeout=20) as island:
        reduce = island.all_reduce

        def with_other_bits(tensors: list[torch.Tensor], *args: Any, **options: Any) -> Any:
            info = reduce(tensors, *args, **options)
            for tensor in tensors:
                tensor.mul_(1 + place / 64)
            return info

        island.all_reduce = with_other_bits  # type: ignore[method-assign,assignment]
        seeds = torch.Generator().manual_seed(10 + rank // SIZE)
        for p in (model["kept"], model["plain"]):
            p.grad = torch.zeros_like(p)
            local(p.grad).copy_(torch.randn(p.shape, generator=seeds))
        seeds = torch.Generator().manual_seed(rank)
        model["own"].grad = 100 * torch.randn(model["own"].shape, generator=seeds)
        before = {key: local(p.grad).float().flatten().tolist() for key, p in model.items()}
        island.all_reduce_gradients()
        after = {key: local(p.grad).float().flatten().tolist() for key, p in model.items()}
        say(before=before, after=after)
        dist.barrier()
    os._exit(0)


def overlapping(*, rank: int, ranks: int, path: str, address: str, family: str) -> None:
    """What leaves arrives while nobody waits for it: each rank trains on only when it is there."""
    name, _ = join_island(rank, path)
    model = sharded(net(0), "fsdp2")
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    kind, options = FAMILY[family]
    arrived, seen = 0, None
    with Island(address, model, name=name, config=CALM, min_islands=2, inner_timeout=20) as island:
        with kind(island, model, inner, sync_every=3, **options) as outer:
            for count in range(12):
                loss_of(model, count, rank).backward()
                inner.step()
                inner.zero_grad()
                until = time.monotonic() + 10
                if outer._flight is not seen and outer._flight is not None:
                    works = outer._flight._works
                    while not all(work.is_completed() for work in works) and time.monotonic() < until:
                        time.sleep(0.001)
                    arrived += len(works) == 2 and time.monotonic() < until
                seen = outer._flight
            outer.finalize()
        say(end=outer.state_digest(), arrived=arrived, windows=outer.windows)
    os._exit(0)


RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "rda": (DiLoCo, {"merge": "rda"}),
    "clip": (DiLoCo, {"outer_momentum_clip": 0.02}),
    "gap": (AsyncDiLoCo, {"staleness": "gap", "lookahead": False, "outer_momentum_clip": 0.02}),
    "lookahead": (AsyncDiLoCo, {"staleness": "gap"}),
    "streaming": (StreamingDiLoCo, {"sync_every": 4, "num_fragments": 2, "fragment_sync_delay": 1}),
    "dynamic": (DiLoCo, {"local_steps": "dynamic"}),
    "quorum": (DiLoCo, {"min_peers": 1, "grace_ms": 5, "weighting": "rarity"}),
    "copy": (DiLoCo, {"inner_state_on_join": "copy"}),
}


def ruled(
    *, rank: int, ranks: int, path: str, address: str, case: str, sharding: str = "fsdp2", outputs: int = 3
) -> None:
    """Two islands, or the same as two peers that are whole (sharding ""), with rules that look at norms or
    clocks. The second one is slower, one rank of it most of all."""
    kind, options = RULES[case]
    size = SIZE if sharding else 1
    number, place = divmod(rank, size)
    if sharding:
        join_island(rank, path)
    whole = net(0)
    if outputs != 3:  # one: the second rank's shard of that bias is empty
        whole[2] = torch.nn.Linear(12, outputs)
    model = sharded(whole, sharding) if sharding else whole
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    timed = case in ("dynamic", "quorum")
    taken: list[int] = []
    with Island(address, model, name="ab"[number], config=CALM, min_islands=2, inner_timeout=20) as island:
        with kind(island, model, inner, **{"sync_every": 8 if timed else 3, **options}) as outer:
            count = 0
            while outer.windows < 6:
                if timed:
                    time.sleep((0.004, 0.02)[number] * (1 + place))
                loss_of(model, count, number).backward()
                count += 1
                before = outer.windows
                inner.step()
                inner.zero_grad()
                if outer.windows > before:
                    taken.append(count)
                    say(window=outer.windows, of=2, digest=outer.state_digest())
            outer.finalize()
        say(end=outer.state_digest(), steps=taken, values=values(model), norm=float(outer._outer.update_norm))
    os._exit(0)


def strangers(*, rank: int, ranks: int, path: str, address: str, case: str) -> None:
    """Island a trains; island b is laid out in another way and comes later; a goes on, and c is welcome."""
    number, place = divmod(rank, SIZE)
    size = 1 if case == "world size" and number == 1 else SIZE
    if place >= size:
        return
    name, place = join_island(rank, path, size=size)
    options: dict[str, Any] = (
        {"shard_placement_fn": lambda p: Shard(p.dim() - 1)} if case == "sharding" else {}
    )
    wrong = number == 1
    model = sharded(net(0, 16 if wrong and case == "model" else 12), "fsdp2", **(options if wrong else {}))
    if wrong and case == "dtype":
        model = sharded(net(0).double(), "fsdp2")
    kind = torch.optim.Adagrad if wrong and case == "optimizer" else torch.optim.AdamW
    inner = kind(model.parameters(), lr=1e-2)
    mark = Path(path + ("-begun" if wrong else "-refused"))
    while number and not mark.exists():
        time.sleep(0.01)
    started = time.monotonic()
    try:
        with Island(
            address, model, inner, name=name, config=CALM, inner_timeout=20, join_timeout=20
        ) as island:
            last = 400  # the same on both ranks
            while island.steps < last:
                with island.step():
                    last = min(last, island.steps + 5) if island.admissions else last
                    loss_of(model.double() if wrong and case == "dtype" else model, 0, 0).backward()
                    island.all_reduce_gradients()
                    inner.step()
                    inner.zero_grad()
                Path(path + "-begun").touch()
                time.sleep(0.02)
            say(end=island.admissions, digest=island.digest())
    except pccl_py.MismatchError as error:
        say(refused=str(error), seconds=time.monotonic() - started)
        Path(path + "-refused").touch()
    os._exit(0)


def half_up(*, rank: int, ranks: int, path: str, address: str) -> None:
    """Rank 3 dies at the door; its sibling is told who is missing, a trains on, and b comes in when whole."""
    name, place = join_island(rank, path)
    model = sharded(net(rank // SIZE), "fsdp2")
    inner = torch.optim.SGD(model.parameters(), lr=0.05)
    late = Path(path + "-half")
    while rank >= 4 and not late.exists():
        time.sleep(0.01)
    if rank == 3:
        Communicator.__init__ = lambda *_, **__: die()  # type: ignore[method-assign]
    name, began = "abb"[rank // SIZE], time.monotonic()
    options: dict[str, Any] = {
        "config": CALM,
        "inner_timeout": 20,
        "join_timeout": 1.0 if rank in (2, 3) else 30,
    }
    try:
        with Island(address, model, inner, name=name, **options) as island:
            last = 400
            while island.steps < last:
                with island.step():
                    last = min(last, island.steps + 3) if island.admissions else last
                    loss_of(model, 0, 0).backward()
                    island.all_reduce_gradients()
                    inner.step()
                    inner.zero_grad()
                time.sleep(0.02)
            say(end=island.digest(), steps=island.steps)
    except pccl_py.OperationTimeout as error:
        say(late=str(error), seconds=time.monotonic() - began)
        late.touch()
    os._exit(0)


def ways(*, rank: int, ranks: int, path: str, address: str) -> None:
    """The rest of an island's calls: shards are memory of the model, averages, extra tensors, counters."""
    name, place = join_island(rank, path)
    number = rank // SIZE
    model = sharded(net(number), "fsdp2")
    extra = torch.full((3,), float(number))
    comm = Communicator(address, island=name, island_size=SIZE, group=place, min_islands=2, config=CALM)
    island = Island(comm, model, None, extra={"position": extra}, inner_timeout=20)
    say(place=[island.name, island.rank, island.size, island.islands], steps=island.steps)
    began = values(model)
    assert island.boundary() is True  # the first one: all hold what island a held
    say(began=began, values=values(model), extra=extra.tolist())
    shards = island.local_shards()
    for shard in shards.values():
        shard.fill_(1.0 + number)
    say(written=values(model)[:1])
    info = island.average_parameters(weight=1.0 + number)
    say(averaged=sorted(set(values(model))), weight=info.weight, of=len(info.contributors))
    assert island.boundary() is False
    assert island.boundary() is False  # asks by a barrier: nothing told whether somebody waits
    numbers = torch.tensor([float(rank)])
    island.all_reduce(numbers, "sum")
    say(summed=numbers.tolist())
    say(no_gradient=caught(island.all_reduce_gradients)["error"])
    set_steps = caught(setattr, island, "steps", 4)
    say(set_steps=set_steps["error"])
    with_name = caught(Island, comm, model, name="x")
    say(with_name=with_name["error"])
    other = caught(Island, address, model)
    say(nameless=other["error"])
    island.leave()
    dist.barrier()
    assert comm.world_size >= 1  # the caller's own
    dist.barrier()
    comm.leave()
    os._exit(0)


def other_siblings(*, rank: int, ranks: int, path: str, address: str) -> None:
    """Two ranks of one island with different models: refused before either joins."""
    name, place = join_island(rank, path)
    model = net(0, 12 + rank)
    say(refused=caught(Island, address, model, name=name, inner_timeout=20))
    os._exit(0)


def one_job(*, rank: int, ranks: int, path: str, address: str) -> None:
    """Two islands in one torch.distributed job: each is a process group of it."""
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=ranks)
    number, place = divmod(rank, SIZE)
    groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    mesh = DeviceMesh.from_group(groups[number], "cpu")
    model = fully_shard(net(number), mesh=mesh)
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
    own: dict[str, Any] = {"process_group": groups[number], "name": "ab"[number], "min_islands": 2}
    with Island(address, model, inner, config=CALM, inner_timeout=20, **own) as island:
        for _ in range(4):
            with island.step():
                loss_of(model, island.steps, rank).backward()
                of = len(island.all_reduce_gradients().contributors)
                inner.step()
                inner.zero_grad()
            say(step=island.steps - 1, of=of, digest=island.digest())
        say(end=island.digest(), place=[island.name, island.rank, island.size])
    dist.barrier()
    os._exit(0)
