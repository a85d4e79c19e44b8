"""FSDP islands that do not stop: two islands of two FSDP2 ranks train one model; a rank of one is killed.

    python examples/fsdp_islands.py
    torchrun --max-restarts 100 --nproc-per-node 2 examples/fsdp_islands.py MASTER ISLAND [STEPS]
        one island of any number of ranks, started anew when one dies (examples/launch/torchrun.sh)

Each island is a torch.distributed job of its own (gloo, on the CPU): inside it FSDP2 shards the model. Across
islands, rank r averages its shards of the gradients with the ranks r of the others, and a step counts on all
ranks of all islands or on none. One rank of island b is killed in a backward pass. Its sibling gets
IslandLost, island a trains on, and a new island b comes in at a step boundary, where it receives model,
optimizer and counters. In the end all steps that islands took together had the same loss and the same bits.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import pccl_py
from pccl_py.parallel import Island

RANKS, KILLED_AT, STEPS_TOGETHER = 2, 15, 20
LOST = 3  # exit status of a rank whose island is lost: whoever starts islands starts it anew


def build() -> torch.nn.Sequential:
    model = torch.nn.Sequential(
        torch.nn.Linear(20, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 1),
    )
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)  # type: ignore[no-any-return]


def train(address: str, name: str, role: str, steps: int | None = None) -> None:
    """A rank of an island whose torch.distributed is initialised. Without `steps`: until some steps after an
    island has come in."""
    torch.set_num_threads(1)
    model = build()  # with weights of its own: the first boundary gives all islands the same
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    if role == "victim":
        model[2].register_full_backward_hook(lambda *_: die_at(island.steps))
    founders = 1 if role == "newcomer" else 2
    with Island(address, model, optimizer, name=name, min_islands=founders, join_timeout=60) as island:
        while island.steps < (last_step(island) if steps is None else steps):
            with island.step():
                step = island.steps
                stream = 1000 * (100 * sum(name.encode()) + dist.get_rank()) + step
                x = torch.randn(32, 20, generator=torch.Generator().manual_seed(stream))
                loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
                loss.backward()
                info = island.all_reduce_gradients()
                mean = loss.detach().clone()
                island.all_reduce(mean)
                optimizer.step()
                optimizer.zero_grad()
            say(step=step, islands=len(info.contributors), loss=mean.item(), digest=island.digest())


admitted_at = None


def last_step(island: Island) -> int:
    """So many steps after an island has come in, as all islands count them; a limit where none comes."""
    global admitted_at
    if island.admissions and admitted_at is None:
        admitted_at = island.steps
    return 20_000 if admitted_at is None else admitted_at + STEPS_TOGETHER


def die_at(step: int) -> None:
    if step == KILLED_AT:
        os.kill(os.getpid(), signal.SIGKILL)


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


# ---- the process that starts them and checks what they said ------------------------------------------------


class Ranks:
    """The processes of one island."""

    def __init__(self, folder: Path, address: str, label: str, role: str = "founder") -> None:
        self.label = label
        store = folder / f"store-{label}"
        self.outputs = [folder / f"{label}-{rank}" for rank in range(RANKS)]
        self.processes = [
            subprocess.Popen(
                [sys.executable, __file__, address, str(store), label[0], str(rank),
                 "founder" if (role, rank) == ("victim", 0) else role],
                stdout=output.open("w"),
            )
            for rank, output in enumerate(self.outputs)
        ]  # fmt: skip

    def wait(self) -> list[int]:
        return [process.wait(timeout=120) for process in self.processes]

    def kill(self) -> None:
        for process in self.processes:
            process.kill()

    def said(self) -> list[list[dict[str, Any]]]:
        return [[json.loads(line) for line in output.open()] for output in self.outputs]


def check(islands: list[Ranks]) -> list[str]:
    """What is wrong with it: rank r of all islands has the same loss and bits in a step, and none is lost."""
    found: dict[tuple[int, int], set[str]] = defaultdict(set)
    for island in islands:
        for rank, lines in enumerate(island.said()):
            for line in lines:
                found[rank, line["step"]].add(f"{line['islands']} {line['loss']} {line['digest']}")
    wrong = [f"rank {r} differs in step {s}: {said}" for (r, s), said in found.items() if len(said) > 1]
    for rank, lines in enumerate(islands[0].said()):
        if [line["step"] for line in lines] != list(range(len(lines))):
            wrong.append(f"rank {rank} of {islands[0].label} left out a step")
        if {line["islands"] for line in lines} != {1, 2}:
            wrong.append(f"rank {rank} of {islands[0].label} never trained alone, or never together")
    return wrong


def show(islands: list[Ranks]) -> None:
    for island in islands:
        for rank, lines in enumerate(island.said()):
            for line in lines:
                if line["step"] % 10 == 0 or line is lines[-1] or line is lines[0]:
                    where = f"{island.label} rank {rank} step {line['step']:4}"
                    bits = line["digest"][:16]
                    print(f"{where}  islands {line['islands']}  loss {line['loss']:.6f}  bits {bits}")


def run(folder: Path, address: str, islands: list[Ranks]) -> int:
    islands += [Ranks(folder, address, "a"), Ranks(folder, address, "b", "victim")]
    lost = islands[1].wait()
    print(f"island b: rank 1 was killed, exit statuses {lost}; starting it anew", flush=True)
    islands.append(Ranks(folder, address, "b again", "newcomer"))
    ended = [island.wait() for island in (islands[0], islands[2])]
    show(islands)
    wrong = check(islands)
    if lost != [LOST, -signal.SIGKILL] or ended != [[0] * RANKS] * 2:
        wrong.append(f"exit statuses {lost} and {ended}")
    print("\n".join(wrong) or "all islands had the same losses and the same bits after each common step")
    return 1 if wrong else 0


def one_rank(words: list[str]) -> None:
    """As torchrun starts it (MASTER ISLAND STEPS), or the process above."""
    if dist.is_torchelastic_launched():
        address, name, *steps = words
        dist.init_process_group(
            "pccl"
        )  # torchrun gives those it starts anew the same store: gloo may dial the dead
        ending = partial(train, address, name, "founder", int(steps[0]) if steps else None)
    else:
        address, store, name, rank, role = words
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=RANKS)
        ending = partial(train, address, name, role)
    try:
        ending()
    except pccl_py.IslandLost as error:
        print(f"island {name}: {error}", file=sys.stderr, flush=True)
        os._exit(LOST)  # nothing of torch.distributed waits for the dead rank


def main() -> int:
    if len(sys.argv) > 1:
        one_rank(sys.argv[1:])
        return 0
    islands: list[Ranks] = []
    with tempfile.TemporaryDirectory() as folder, pccl_py.Master("127.0.0.1:0") as master:
        try:
            return run(Path(folder), master.address, islands)
        finally:
            for island in islands:
                island.kill()


if __name__ == "__main__":
    sys.exit(main())
