"""A peer of the DiLoCo family in a process: `python -m tests.integration.family_peer ADDRESS NAME KIND ...`

KIND is a key of KINDS. As diloco_peer, with two parameters, and it may be killed while an average travels.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch

from pccl_py import Communicator, Config
from pccl_py.optim import AsyncDiLoCo, DiLoCo, StreamingDiLoCo
from pccl_py.work import Work

from .diloco_peer import PULL, H, say, start, target
from .trapped import trap_part

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "diloco": (DiLoCo, {}),
    "copy": (DiLoCo, {"inner_state_on_join": "copy"}),
    "int8": (DiLoCo, {"quantization": "int8"}),
    "int4": (DiLoCo, {"quantization": "int4"}),
    "streaming": (StreamingDiLoCo, {"num_fragments": 2, "fragment_sync_delay": 1}),
    "streaming int4": (
        StreamingDiLoCo,
        {"num_fragments": 2, "fragment_sync_delay": 1, "quantization": "int4"},
    ),
    "async": (AsyncDiLoCo, {}),
    "gap": (AsyncDiLoCo, {"staleness": "gap"}),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def interrupted_wait(*, late: bool) -> Iterator[None]:
    """Ctrl-C in the first wait; late: when the operation has committed, just before it would return."""
    real, calls = Work.wait, 0

    def wait(work: Work, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1 and late:
            real(work, *arguments, **options)
        if calls == 1:
            raise KeyboardInterrupt
        return real(work, *arguments, **options)

    with mock.patch.object(Work, "wait", wait):
        yield


class Calling(Communicator):
    """Dies, or is interrupted, in a reduction."""

    outer: Any = None
    told: Any = None

    def arm(self, outer: Any, options: argparse.Namespace) -> None:
        self.outer, self.told = outer, options
        if options.die_in in ("outer", "model"):
            state = outer._outer
            places = {"outer": (state.optimizer, "step"), "model": (state, "store_to_model")}
            holder, name = places[options.die_in]
            real = getattr(holder, name)

            def dying(*arguments: Any, **named: Any) -> Any:
                in_model = options.die_in == "model"  # when the window counts already
                result = None if in_model else real(*arguments, **named)
                if outer.windows >= options.die_behind + in_model:
                    die()
                return real(*arguments, **named) if in_model else result

            setattr(holder, name, dying)

    def send(self, *arguments: Any, **options: Any) -> Any:
        if self.told is not None and self.told.die_in == "send":
            die()
        return super().send(*arguments, **options)

    def all_reduce(self, tensors: Any, *arguments: Any, **options: Any) -> Any:
        call = partial(super().all_reduce, algorithm="direct")
        if self.outer is None:
            return call(tensors, *arguments, **options)
        counts = tensors[0].dtype == torch.float64
        if self.told.interrupt_behind == self.outer.windows and not counts:
            self.told.interrupt_behind = -1
            options.pop("async_op", None)
            with interrupted_wait(late=self.told.interrupt_late):
                call(tensors, *arguments, **options)
        if self.told.die_behind != self.outer.windows:
            return call(tensors, *arguments, **options)
        phase = self.told.die_in
        if phase == "counts" and counts:
            call(tensors, *arguments, **options)
            die()
        if phase in ("quantize", "reduce") and not counts:
            trap_part(self, tensors[0], own=phase == "reduce")
        if phase == "commit" and not counts:
            call(tensors, *arguments, **options)
            die()
        return call(tensors, *arguments, **options)


def sample(outer: Any) -> list[float]:
    return [float(value) for part in outer.outer_parameters().values() for value in part[:25]]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("kind")
    parser.add_argument("--size", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--founders", type=int, default=1)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds per inner step")
    parser.add_argument("--die-in-flight", type=int, default=-1, help="behind so many windows")
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--die-in", help="a phase of test_diloco_phases.py")
    parser.add_argument("--die-behind", type=int, default=-1, help="so many windows")
    parser.add_argument("--leave-behind", type=int, default=-1, help="so many windows, politely")
    parser.add_argument("--interrupt-behind", type=int, default=-1, help="so many windows")
    parser.add_argument("--interrupt-late", action="store_true", help="when it has committed")
    options = parser.parse_args()

    torch.set_num_threads(1)
    half = options.size // 2
    begin, aim = (
        torch.from_numpy(start(options.size)).float(),
        torch.from_numpy(target(options.name, options.size)),
    )
    parts = {"a": begin[:half], "b": begin[half:]}
    aims = {"a": aim[:half].float(), "b": aim[half:].float()}
    model = torch.nn.ParameterDict({key: torch.nn.Parameter(part.clone()) for key, part in parts.items()})
    # A state worth a copy, and values as without it.
    inner = torch.optim.SGD(model.parameters(), lr=PULL, momentum=1e-9 if options.kind == "copy" else 0.0)
    kind, settings = KINDS[options.kind]
    say("ready")
    if options.wait:
        sys.stdin.readline()
    config = Config(heartbeat_ms=100, heartbeats_missed_max=100)  # a busy machine evicts nobody here
    with Calling(options.address, min_islands=options.founders, config=config) as comm:
        say("member", id=comm.id, name=options.name)
        with kind(comm, model, inner, sync_every=H, **settings) as outer:
            comm.arm(outer, options)
            say("begins", window=outer.windows, digest=outer.state_digest())
            while outer.windows < options.windows:
                time.sleep(options.pace)
                if outer.windows == options.die_in_flight and outer._flight is not None:
                    os.kill(os.getpid(), signal.SIGKILL)
                for key, parameter in model.items():
                    parameter.grad = parameter.detach() - aims[key]
                if options.die_in == "overlap" and outer.windows == options.die_behind and outer._flight:
                    die()
                if outer.windows == options.leave_behind:
                    outer.ask_to_leave()
                tell = outer.windows
                try:
                    inner.step()
                except KeyboardInterrupt:
                    say("interrupted", window=outer.windows)
                    if kind is DiLoCo:
                        outer.sync()
                last = outer.stats.last
                if outer.windows > tell and last is not None:
                    say(
                        "window", number=last.number, digest=outer.state_digest(), weight=last.weight,
                        contributors=last.contributors, attempts=last.attempts, theta=sample(outer),
                    )  # fmt: skip
                if outer.should_leave:
                    return
            outer.finalize()
        theta = torch.cat([part.reshape(-1) for part in outer.outer_parameters().values()])
        say("end", theta=theta[:50].tolist(), digest=outer.state_digest(), windows=outer.windows)


if __name__ == "__main__":
    main()
