"""`bench optim`: what the optimizers of `pccl_py.optim` cost, and how much of their waiting they hide.

Alone: the hook of an inner step beside a training step, the outer step on one core, memory. With --overlap:
the share of time that peers stand still, 100 ms and 100 Mbit/s apart in an emulated network, where training
is a sleep.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import UsageError
from . import wan
from .crew import Crew, each
from .peers import start_master
from .report import Figure
from .units import MIB, bytes_text
from .wan_peer import WanMaster
from .wan_row import Options

HOOK_GOAL, STEP_GOAL_S, IDLE_GOAL = 0.01, 0.25, 0.05
SIZE, TENSORS = 256 * MIB, 64
FAR = Options(peers=2, rtt_ms=100.0, rate_mbit=100.0)
SLACK = 1.03  # of memory: pages and allocators

# What is kept, in units of the parameters: outer parameters and momentum, one fragment, residuals.
KEPT: dict[str, tuple[dict[str, Any], float]] = {
    "DiLoCo": ({}, 3.0),
    "DiLoCo int4": ({"quantization": "int4"}, 5.0),
    "StreamingDiLoCo, 4 fragments": ({"num_fragments": 4}, 2.25),
}


def measure(repeats: int, size: int = SIZE) -> Iterator[Figure]:
    kind = _peers().Loop
    with Crew() as crew:
        _, about = start_master(crew)
        loop = crew.start("a loop", kind)
        step = loop.call("step_seconds", repeats=10 * repeats)
        hook = loop.call("hook_seconds", address=about["address"], repeats=repeats)
        details = {"hook_us": hook * 1e6, "step_ms": step * 1e3}
        name = "hook of an inner step, part of a small GPT's"
        yield Figure("optim", name, hook / step, "", HOOK_GOAL, details)
        found = loop.call("outer_step", size=size, tensors=TENSORS, repeats=repeats)
        per_gb = {name: found[name] * 1e9 / size for name in ("step", "delta", "model")}
        details = {"gbs": 1 / per_gb["step"], "whole_boundary_gbs": 1 / sum(per_gb.values())}
        name = f"outer step of {bytes_text(size)} on one core, per GB of parameters"
        yield Figure("optim", name, per_gb["step"], "s", STEP_GOAL_S, details, bool(found["right"]))
    for name, (options, kept) in KEPT.items():
        yield _memory(kind, size, name, options, kept)


def _memory(kind: Any, size: int, name: str, options: dict[str, Any], kept: float) -> Figure:
    with Crew() as crew:
        _, about = start_master(crew)
        pair = [crew.start(f"peer {i}", kind) for i in range(2)]
        found = each(pair, "memory", address=about["address"], size=size, options=options)
    right = all(each["right"] for each in found)
    extra, peak = max(each["extra"] for each in found), max(each["peak"] for each in found)
    details = {"of_parameters": extra / size, "peak_in_a_window": peak / size}
    text = f"memory that {name} keeps for {bytes_text(size)}"
    return Figure("optim", text, extra, "B", kept * size * SLACK, details, right)


def overlap(windows: int = 5, size: int = MIB, every: int = 20, step_s: float = 0.05) -> Iterator[Figure]:
    """Raises CannotMeasure where there is no emulated network."""
    peers = _peers()
    for kind in peers.KINDS:
        with wan.network(FAR) as net, Crew() as crew:
            master = crew.start("the master", partial(WanMaster, net.namespaces[2], net.addresses[2]))
            address = master.call("describe")["address"]
            make = partial(peers.FarPeer, transport="tcp")
            pair = [crew.start(f"peer {i}", partial(make, net.namespaces[i], i, 2)) for i in range(2)]
            each(pair, "join", address=address, min_islands=2)
            found = each(
                pair, "train", within=300, kind=kind, size=size, every=every, step_s=step_s, windows=windows
            )
        idle = max(one["waited"] / (one["trained"] + one["waited"]) for one in found)
        right = found[0]["digest"] == found[1]["digest"]
        name = f"idle share of {kind}, {bytes_text(size)}, 100 ms, 100 Mbit/s, {every * step_s:g} s a window"
        details = {"utilisation": 1 - idle, "step_ms": found[0]["trained"] / (every * windows) * 1e3}
        goal = None if kind == "diloco" else IDLE_GOAL
        yield Figure("optim", name, idle, "", goal, details, right)


def _peers() -> Any:
    if find_spec("torch") is None:
        raise UsageError("bench optim needs torch: pip install 'pccl-py[torch]'")
    return import_module(f"{__package__}.optim_peer")
