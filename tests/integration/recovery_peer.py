"""One stage of a pipeline in a process: `python -m tests.integration.recovery_peer ADDRESS STAGE ...`

Three residual stages learn one batch; activations and their gradients go through send and recv. It writes one
JSON object per line. A stage is found by the name of its island.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from typing import Any

import torch
from torch import Tensor, nn

from pccl_py import Communicator, Config, PeerInfo, PeerLost, Work
from pccl_py.recovery import raise_learning_rate, recover_stage, send_stage, squared_gradient_norm

STAGES, WIDTH, ROWS = 3, 8, 64
RATE = 0.05


class Residual(nn.Module):
    """[rows, WIDTH] -> the same. The buffer counts forwards: an integer, which no average touches."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator) / WIDTH)
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return x + torch.tanh(x @ self.weight + self.bias)


def batch() -> tuple[Tensor, Tensor]:
    """What goes in, and what shall come out: [ROWS, WIDTH] each."""
    x = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(7))
    target = x
    for _ in range(STAGES):
        target = target + torch.tanh(target.roll(1, 1))
    return x, target


class DiesHalfway(Communicator):
    """Is killed when one neighbour's stage is here and the other's is not."""

    works: list[Work] = []

    def recv(self, *arguments: Any, **options: Any) -> Any:
        if self.works:
            self.works[0].wait(30)
            os.kill(os.getpid(), signal.SIGKILL)
        self.works.append(super().recv(*arguments, **options))
        return self.works[0]


class Peer:
    def __init__(self, comm: Communicator, place: int) -> None:
        self.comm, self.place = comm, place
        self.stage = Residual(place)
        self.optimizer = torch.optim.SGD(self.stage.parameters(), lr=RATE)
        self.weight = 0.0

    def at(self, place: int) -> PeerInfo:
        for peer in self.comm.peers():
            if peer.island == f"stage-{place}":
                return peer
        raise PeerLost(f"nobody has stage {place} now")

    def step(self, dies: bool) -> float:
        """Forward, backward and update of this stage; the loss on the last one, else 0."""
        x, target = batch()
        loss = 0.0
        if self.place > 0:
            self.comm.recv(x, self.at(self.place - 1))
            x.requires_grad_()
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)
        y = self.stage(x)
        if self.place < STAGES - 1:
            self.comm.send(y.detach(), self.at(self.place + 1))
            self.comm.recv(gradient := torch.empty_like(y), self.at(self.place + 1))
        else:
            error = nn.functional.mse_loss(y, target)
            loss = error.item()
            (gradient,) = torch.autograd.grad(error, y, retain_graph=True)
        y.backward(gradient)
        if self.place > 0:
            assert x.grad is not None
            self.comm.send(x.grad, self.at(self.place - 1))
        self.weight = squared_gradient_norm(self.stage)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss

    def train(self, steps: int, die_at: int = -1) -> None:
        for step in range(steps):
            loss = self.step(step == die_at)
            if self.place == STAGES - 1:
                say("loss", value=loss)

    def help(self) -> None:
        """A neighbour's part: again for each replacement, until one is there to stay."""
        say("helps", counts=self.weight, **self.values())
        while True:
            self.comm.wait_for(STAGES)
            try:
                send_stage(self.comm, self.stage, self.at(1), weight=self.weight)
                self.comm.barrier(on_loss="raise")
                return
            except PeerLost as lost:
                say("again", error=str(lost))

    def replace(self) -> None:
        peers = [self.at(0), None, self.at(2)]
        weights = recover_stage(self.comm, self.stage, 1, peers)
        raise_learning_rate(self.optimizer)
        say("recovered", weights=weights, rate=self.optimizer.param_groups[0]["lr"], **self.values())
        self.comm.barrier(on_loss="raise")

    def values(self) -> dict[str, Any]:
        return {name: tensor.tolist() for name, tensor in self.stage.state_dict().items()}


def say(event: str, **values: Any) -> None:
    line = json.dumps({"event": event, **values}) + "\n"
    print(line, end="", flush=True)  # in one write: lines of the log come between two


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("stage", type=int)
    parser.add_argument("--replaces", action="store_true")
    parser.add_argument("--dies-halfway", action="store_true")
    parser.add_argument("--die-at", type=int, default=-1)
    parser.add_argument("--before", type=int, default=40)
    parser.add_argument("--after", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    kind = DiesHalfway if options.dies_halfway else Communicator
    config = Config(heartbeat_ms=100, heartbeats_missed_max=10)
    island = f"stage-{options.stage}"
    with kind(options.address, island=island, min_islands=STAGES, config=config) as comm:
        peer = Peer(comm, options.stage)
        if options.replaces:
            peer.replace()
        else:
            try:
                peer.train(options.before, options.die_at)
            except PeerLost:
                peer.help()
        peer.train(options.after)
        comm.barrier()
    say("end", **peer.values())


if __name__ == "__main__":
    main()
