"""The peers of `bench optim`: what the optimizers cost a loop, and how long a loop stands still for them.

Needs torch, which the bench has imported before the processes are forked.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import torch

from ..communicator import Communicator
from ..demo.model import GPT, Shape
from ..optim import AsyncDiLoCo, DiLoCo, StreamingDiLoCo
from ..optim.options import nesterov
from ..optim.outer_state import OuterState
from .memory import resident
from .wan_peer import WanPeer

SHAPE, BATCH = Shape(layers=2, heads=2, width=64, context=64), 8  # as in examples/compare_optimizers.py
NEVER = 1 << 40
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "diloco": (DiLoCo, {}),
    "streaming": (StreamingDiLoCo, {"num_fragments": 2, "fragment_sync_delay": 9}),
    "async": (AsyncDiLoCo, {"staleness": "gap"}),
}


class Loop:
    """A process of its own, alone in its run."""

    def __init__(self) -> None:
        torch.set_num_threads(1)

    def step_seconds(self, repeats: int) -> float:
        """The shortest time of a step of that GPT with AdamW, forward and backward included."""
        model = GPT(SHAPE)
        inner = torch.optim.AdamW(model.parameters(), lr=1e-3)
        x = torch.randint(0, 256, (BATCH, SHAPE.context + 1))

        def step() -> None:
            inner.zero_grad()
            torch.autograd.backward(model.loss(x))
            inner.step()

        return _shortest(step, repeats)

    def hook_seconds(self, address: str, repeats: int, steps: int = 1000) -> float:
        """Of one inner step that ends no window; what AdamW's own step takes is not in it."""
        model = GPT(SHAPE)
        inner = torch.optim.AdamW(model.parameters(), lr=1e-3)
        with Communicator(address) as comm, DiLoCo(comm, model, inner, sync_every=NEVER) as outer:

            def hooked() -> None:
                for _ in range(steps):
                    outer._on_step()

            return _shortest(hooked, repeats) / steps

    def outer_step(self, size: int, tensors: int, repeats: int) -> dict[str, float | bool]:
        """Seconds: of the difference, of the outer step (Nesterov SGD) and of the way back into the model;
        on one core. `size`: bytes of float32 parameters, in so many tensors."""
        torch.manual_seed(0)
        count = size // 4 // tensors
        parts = [torch.nn.Parameter(torch.randn(count)) for _ in range(tensors)]
        state = OuterState(torch.nn.ParameterList(parts), nesterov, False)
        began = state.parameters[:count].clone()
        with torch.no_grad():
            for part in parts:
                part.sub_(0.25)
        found = {"delta": _shortest(state.take_delta, repeats)}
        delta = float(state.delta[0])

        def step() -> None:
            state.commit([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
            state.apply(1, 0)

        found["step"] = _shortest(step, repeats)
        found["model"] = _shortest(state.store_to_model, repeats)
        theta, momentum = began[0].double(), 0.0
        for _ in range(repeats):
            momentum = 0.9 * momentum + delta
            theta -= 0.7 * (delta + 0.9 * momentum)
        right = abs(parts[0][0].item() - float(theta)) < 1e-3 * abs(float(theta)) and abs(delta - 0.25) < 1e-6
        return {**found, "right": right}

    def memory(self, address: str, size: int, options: dict[str, Any]) -> dict[str, float | bool]:
        """Bytes beyond the model and its inner optimizer: after windows, and the most in one."""
        tensors = 16
        parts = [torch.nn.Parameter(torch.ones(size // 4 // tensors)) for _ in range(tensors)]
        model = torch.nn.ParameterList(parts)
        inner = torch.optim.SGD(model.parameters(), lr=0.5)
        for part in parts:
            part.grad = torch.full_like(part, 0.5)
        inner.step()
        with Communicator(address, min_islands=2) as comm:
            ctypes.CDLL(None).malloc_trim(0)
            before = resident("VmRSS")
            kind = StreamingDiLoCo if "num_fragments" in options else DiLoCo
            with kind(comm, model, inner, sync_every=4, **options) as outer:
                for _ in range(8):
                    inner.step()
                with open("/proc/self/clear_refs", "w") as file:
                    file.write("5")  # the peak counts from here
                for _ in range(4):
                    inner.step()
                peak = resident("VmHWM") - before
                ctypes.CDLL(None).malloc_trim(0)  # what is free already is nobody's
                return {
                    "extra": resident("VmRSS") - before,
                    "peak": peak,
                    "right": outer.windows >= 3 and all(bool((p == p[0]).all()) for p in parts),
                }


def _shortest(call: Callable[[], object], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return min(found)


class FarPeer(WanPeer):
    """Trains by sleeping, in a namespace of the emulated network."""

    def __init__(self, path: str, index: int, peers: int, **settings: Any) -> None:
        super().__init__(path, index, peers, **settings)
        torch.set_num_threads(1)

    def train(self, kind: str, size: int, every: int, step_s: float, windows: int) -> dict[str, Any]:
        """Its time of training as a share of that and of its waits, after the first two windows."""
        make, options = KINDS[kind]
        halves = {name: torch.nn.Parameter(torch.zeros(size // 8)) for name in "ab"}
        model = torch.nn.ParameterDict(halves)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        trained = waited = 0.0
        with make(self.comm, model, inner, sync_every=every, **options) as outer:
            for step in range(every * (windows + 2)):
                if step == 2 * every:
                    trained, waited = 0.0, outer.stats.wait_s
                before = time.monotonic()
                time.sleep(step_s)
                trained += time.monotonic() - before
                for p in model.values():
                    p.grad = torch.ones_like(p)
                inner.step()
            waited = outer.stats.wait_s - waited
            outer.finalize()
            outer.close()
        return {"trained": trained, "waited": waited, "digest": outer.state_digest()}
