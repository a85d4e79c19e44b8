"""A peer dies in an average that overlaps training: those who live have, to the last bit, what they would
have without it, the values that quantization has held back included."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from pccl_py import Communicator, Config, Master
from pccl_py.optim import AsyncDiLoCo, StreamingDiLoCo
from tests.conftest import Spawn
from tests.threads import in_threads

from .peers import PEER, expect
from .trapped import SIGNAL

SIZE, STEPS = 150_000, 12  # of each of two fragments: more than a page for each peer's part
CALM = Config(heartbeat_ms=100, heartbeats_missed_max=100)  # a busy machine evicts nobody here
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "streaming": (StreamingDiLoCo, {"sync_every": 4, "num_fragments": 2, "fragment_sync_delay": 1}),
    "async": (AsyncDiLoCo, {"sync_every": 3, "staleness": "gap"}),
}


def train(
    comm: Communicator, place: int, kind: str, code: str | None
) -> tuple[list[str], list[int], list[Tensor], list[Tensor]]:
    """Digests and attempts of all windows; the model, and what is held back, at the end."""
    make, options = KINDS[kind]
    model = torch.nn.ParameterDict({key: torch.nn.Parameter(torch.zeros(SIZE)) for key in "ab"})
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    digests, attempts = [], []
    with make(comm, model, inner, quantization=code, **options) as outer:
        for step in range(STEPS):
            noise = torch.Generator().manual_seed(10 * step + place)
            for parameter in model.values():
                parameter.grad = parameter.detach() + torch.randn(SIZE, generator=noise)
            before = outer.windows
            outer.add_tokens(7)
            inner.step()
            last = outer.stats.last
            if outer.windows > before and last is not None:
                digests.append(outer.state_digest())
                attempts.append(last.attempts)
        outer.finalize()
        digests.append(outer.state_digest())
    held = [] if code is None else [e for parts in outer.state_dict()["residuals"].values() for e in parts]
    return digests, attempts, [p.detach() for p in model.values()], held


DIES = """
import torch
from tests.integration.test_killed_under_way import CALM, KINDS, SIZE
from tests.integration.trapped import trap_part
class Trapped(Communicator):
    def all_reduce(self, tensors, *arguments, **options):
        if len(tensors) == 1:  # the delta, behind its counts: with them it has committed
            while not self.counts.is_completed():
                time.sleep(0.001)
            trap_part(self, tensors[0], own=True)
        self.counts = super().all_reduce(tensors, *arguments, algorithm="direct", **options)
        return self.counts
torch.set_num_threads(1)
comm = Trapped(address, min_islands=3, config=CALM, deterministic=True)
say("id", comm.id)
make, options = KINDS[sys.argv[2]]
model = torch.nn.ParameterDict({key: torch.nn.Parameter(torch.zeros(SIZE)) for key in "ab"})
inner = torch.optim.SGD(model.parameters(), lr=0.1)
with make(comm, model, inner, quantization=sys.argv[3] or None, **options) as outer:
    while True:
        for parameter in model.values():
            parameter.grad = torch.ones(SIZE)
        outer.add_tokens(7)
        inner.step()
"""


class Direct(Communicator):
    """So that it is known where the trap is met."""

    def all_reduce(self, tensors: Any, *arguments: Any, **options: Any) -> Any:
        return super().all_reduce(tensors, *arguments, algorithm="direct", **options)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("streaming", "int4"),
        *(
            pytest.param(*case, marks=pytest.mark.nightly)
            for case in (("streaming", None), ("async", None), ("async", "int4"))
        ),
    ],
)
def test_killed_inside_leaves_the_bits_of_those_who_live(
    master: Master, spawn: Spawn, kind: str, code: str | None
) -> None:
    victim = spawn("-c", PEER + DIES, master.address, kind, code or "")
    dead: list[int] = []
    known = threading.Event()

    def watch() -> None:
        dead.append(int(expect(victim, "id")))
        known.set()

    def survive() -> Any:
        with Direct(master.address, min_islands=3, config=CALM, deterministic=True) as comm:
            assert known.wait(20)
            alive = [peer for peer in sorted(comm.ring) if peer != dead[0]]
            place = alive.index(comm.id)
            return place, train(comm, place, kind, code)

    found = dict(in_threads([survive, survive, watch])[:2])
    assert victim.wait(20) == -SIGNAL
    with Master() as other:

        def alone() -> Any:
            with Direct(other.address, min_islands=2, config=CALM, deterministic=True) as comm:
                place = sorted(comm.ring).index(comm.id)
                return place, train(comm, place, kind, code)

        wanted = dict(in_threads([alone, alone]))
    for place in (0, 1):
        digests, attempts, *tensors = found[place]
        assert attempts[0] > 1 and set(attempts[1:]) == {1}
        assert digests == wanted[place][0] and set(wanted[place][1]) == {1}
        for ours, theirs in zip(tensors, wanted[place][2:], strict=True):
            assert len(ours) == len(theirs) and all(map(torch.equal, ours, theirs))
    assert found[0][3] == [] or max(float(e.abs().max()) for e in found[0][3]) > 0
