"""Train, kill -9, resume: to the bit on as many ranks, and on another number of them.

    python examples/checkpoint_resume.py

Two ranks train a small transformer with FSDP2 and save beside the training. All are killed in the middle of
it and start again: every later loss is that of a run that nobody killed. Then the same checkpoint is resumed
by one rank.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, EVERY, KILL_AFTER = 24, 4, 13
BATCH, WIDTH, VOCABULARY, LENGTH = 8, 64, 128, 32


def train(rank: int, ranks: int, store: str, folder: str, log: str, pause: float) -> None:
    """One rank: a line of JSON for each step, with the loss of the whole batch."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    import pccl_py as pccl

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, dropout=0.0, batch_first=True)
    model = torch.nn.Sequential(
        torch.nn.Embedding(VOCABULARY, WIDTH), layer, torch.nn.Linear(WIDTH, VOCABULARY)
    )
    for part in (*model, model):
        fully_shard(part)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    state = pccl.TrainState(model=model, inner=optimizer)
    saver = pccl.Checkpointer(folder, every=EVERY, keep=3)
    with pccl.protect(state, checkpoints=saver) as run, open(log, "a") as out:
        print(json.dumps({"resumed_from": run.resumed_from["model"].step}), file=out, flush=True)
        while run.step < STEPS:
            generator = torch.Generator().manual_seed(run.step)
            batch = torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1), generator=generator)
            mine = batch[rank * BATCH // ranks : (rank + 1) * BATCH // ranks]
            logits = model(mine[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), mine[:, 1:].flatten())
            loss.backward()
            total = loss.detach().clone()
            dist.all_reduce(total)
            optimizer.step()
            optimizer.zero_grad()
            print(json.dumps({"step": run.step, "loss": float(total) / ranks}), file=out, flush=True)
            time.sleep(pause)
    dist.destroy_process_group()


def start(ranks: int, folder: Path, log: Path, pause: float = 0.0) -> list[subprocess.Popen[bytes]]:
    store = Path(tempfile.mkdtemp(dir=log.parent)) / "store"
    words = ["--ranks", str(ranks), "--store", str(store), "--folder", str(folder), "--pause", str(pause)]
    return [
        subprocess.Popen([sys.executable, __file__, *words, "--rank", str(rank), "--log", f"{log}-{rank}"])
        for rank in range(ranks)
    ]


def lines(log: Path) -> list[dict[str, float]]:
    path = Path(f"{log}-0")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def finish(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.wait(120) != 0:
            raise SystemExit(f"a rank ended with status {process.returncode}")


def main() -> None:
    place = Path(tempfile.mkdtemp(prefix="pccl-resume-"))
    print("two ranks train; nobody is killed")
    finish(start(2, place / "calm", place / "calm.log"))
    calm = {int(line["step"]): line["loss"] for line in lines(place / "calm.log") if "step" in line}

    print(f"two ranks train the same; all are killed after step {KILL_AFTER}")
    processes = start(2, place / "steps", place / "killed.log", pause=0.05)
    while not any(line.get("step", 0) >= KILL_AFTER for line in lines(place / "killed.log")):
        if any(process.poll() is not None for process in processes):
            raise SystemExit("a rank ended before it was killed")
        time.sleep(0.005)
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    for ranks in (2, 1):
        folder = place / f"steps-{ranks}"
        subprocess.run(["cp", "-r", str(place / "steps"), str(folder)], check=True)
        finish(start(ranks, folder, place / f"resumed-{ranks}.log"))
        told = lines(place / f"resumed-{ranks}.log")
        losses = {int(line["step"]): line["loss"] for line in told if "step" in line}
        worst = max(abs(losses[step] - calm[step]) for step in losses)
        print(
            f"{ranks} rank(s) went on from step {told[0]['resumed_from']}: {len(losses)} losses, largest "
            f"difference to the calm run {worst:g}"
        )
        if ranks == 2 and worst != 0 or worst > 1e-4 or max(losses) != STEPS:
            raise SystemExit("WRONG: the resumed run is another one")
    print("all as if nobody had been killed")
    shutil.rmtree(place)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, kind in (("rank", int), ("ranks", int), ("store", str), ("folder", str), ("log", str)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--pause", type=float, default=0.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rank is None:
        main()
    else:
        train(given.rank, given.ranks, given.store, given.folder, given.log, given.pause)
