"""elastic_data_parallel against one process that has all samples: peers are threads here, all stay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from pccl_py import (  # noqa: E402
    Communicator,
    Config,
    ConnectError,
    Master,
    MismatchError,
    UsageError,
)
from pccl_py.parallel import ElasticSampler, background_sync, elastic_data_parallel  # noqa: E402
from pccl_py.parallel.step_reduction import synchronize  # noqa: E402
from tests.conftest import Spawn  # noqa: E402
from tests.threads import in_threads  # noqa: E402

from .peers import QUICK, expect, together  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So that sums have one order, however busy the machine is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_seeding = threading.Lock()  # the generator is the process's
X = torch.randn(64, 6, generator=torch.Generator().manual_seed(5))


class Data(torch.utils.data.Dataset):
    def __getitem__(self, index: int) -> Any:
        return X[index]

    def __len__(self) -> int:
        return len(X)


class Forked(torch.nn.Module):
    """`used` and `other` are trained where `index` says so, `never` nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.other, self.never = (torch.nn.Linear(6, 2) for _ in range(3))
        self.index = 0

    def forward(self, x: Any) -> Any:
        return self.used(x) + (self.other(x) if self.index else 0)


def net(kind: Callable[[], Any] | None = None) -> Any:
    with _seeding:
        torch.manual_seed(0)
        if kind is not None:
            return kind()
        linear = torch.nn.Linear
        return torch.nn.Sequential(linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Tanh(), linear(8, 2))


def plain() -> Any:
    linear = torch.nn.Linear
    return torch.nn.Sequential(linear(6, 8), torch.nn.Tanh(), linear(8, 2))


def flat(model: Any) -> Any:
    return torch.cat([t.detach().float().reshape(-1) for t in model.state_dict().values()])


def loss(model: Any, x: Any) -> Any:
    return (model(x) - x[:, :2].sin()).square().mean()


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.Adagrad, torch.optim.SGD])
@pytest.mark.parametrize("cap", [0.0001, 25.0])
def test_one_peer_is_one_process(master: Master, optimizer: Any, cap: float) -> None:
    """To the bit, batch normalization and clipping included."""

    def play(comm: Communicator, index: int) -> Any:
        model, sampler = net(), ElasticSampler(64, global_batch=16, seed=1)
        inner = optimizer(model.parameters(), lr=0.05)
        run = elastic_data_parallel(model, comm, inner, sampler=sampler, bucket_cap_mb=cap)
        for x in run.batches(Data(), steps=8):
            loss(model, x).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            inner.step()
            inner.zero_grad()
        return flat(model)

    (found,) = together(master.address, 1, play)
    model, sampler = net(), ElasticSampler(64, global_batch=16, seed=1)
    inner = optimizer(model.parameters(), lr=0.05)
    for _ in range(8):
        sampler.seat([0])
        loss(model, X[sampler.share(0)]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        inner.step()
        inner.zero_grad()
        sampler.commit(sampler.used(0), [0])
    assert torch.equal(found, flat(model))


@pytest.mark.parametrize("zero_fill", [False, True])
def test_unequal_shares_are_weighted_and_newcomers_may_prepare(master: Master, zero_fill: bool) -> None:
    """16 samples over 3 peers: 5, 5 and 6."""

    def join() -> Any:
        return Communicator(master.address, min_islands=3, config=QUICK)

    def play(_: Any, index: int) -> Any:
        model, sampler = net(plain), ElasticSampler(64, global_batch=16, seed=1)
        inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with elastic_data_parallel(model, join, inner, sampler=sampler, bucket_cap_mb=0.0001) as run:
            shares = []
            for x in run.batches(Data(), steps=8):
                loss(model, x).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                shares.append(run.samples)
                inner.step()
                inner.zero_grad(set_to_none=not zero_fill)
            run.comm.barrier()
            return flat(model), shares, run.digest()

    found = in_threads([partial(play, None, index) for index in range(3)], 50)
    assert sorted(shares[0] for _, shares, _ in found) == [5, 5, 6]
    assert len({digest for _, _, digest in found}) == 1
    model, sampler = net(plain), ElasticSampler(64, global_batch=16, seed=1)
    inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(8):
        sampler.seat([0])
        loss(model, X[sampler.share(0)]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        inner.step()
        inner.zero_grad()
        sampler.commit(sampler.used(0), [0])
    torch.testing.assert_close(found[0][0], flat(model), rtol=1e-4, atol=1e-6)


def test_statistics_of_normalization_are_the_mean_by_samples(master: Master) -> None:
    def play(comm: Communicator, index: int) -> Any:
        model, sampler = net(), ElasticSampler(64, global_batch=15, seed=1)
        inner = torch.optim.SGD(model.parameters(), lr=0.0)
        run = elastic_data_parallel(model, comm, inner, sampler=sampler)
        alone = net()
        for x in run.batches(Data(), steps=1):
            loss(alone, x)
            loss(model, x).backward()
            inner.step()
        return alone[1].running_mean, run.samples, model[1].running_mean

    found = together(master.address, 2, play)
    mean = sum(own * samples for own, samples, _ in found) / 15
    for _, _, running in found:
        torch.testing.assert_close(running, mean)
    assert torch.equal(found[0][2], found[1][2])


def test_without_a_sampler_the_user_says_the_weight(master: Master) -> None:
    """And who has no sample adds nothing, not even what is not finite."""

    def play(comm: Communicator, index: int) -> Any:
        model = net(plain)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        run = elastic_data_parallel(model, comm, inner)
        for begin in (0, 12):
            run.boundary()
            rows = X[begin : begin + 4] if index == 0 else X[begin + 4 : begin + 12]
            run.samples = [4, 8, 0][index]
            value = loss(model, rows * float("nan") if index == 2 else rows)
            value.backward()
            mean = run.mean(value)
            inner.step()
            inner.zero_grad()
        return flat(model), mean

    found = together(master.address, 3, play)
    model = net(plain)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    for begin in (0, 12):
        value = loss(model, X[begin : begin + 12])
        value.backward()
        inner.step()
        inner.zero_grad()
    for weights, mean in found:
        torch.testing.assert_close(weights, flat(model), rtol=1e-5, atol=1e-6)
        assert mean == pytest.approx(value.item(), rel=1e-5)


def test_several_backward_passes_of_a_step(master: Master) -> None:
    def play(comm: Communicator, index: int) -> Any:
        model, sampler = net(plain), ElasticSampler(64, global_batch=16)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        run = elastic_data_parallel(model, comm, inner, sampler=sampler)
        for x in run.batches(Data(), steps=3):
            half = len(x) // 2
            with run.no_sync():
                (loss(model, x[:half]) / 2).backward()
            (loss(model, x[half:]) / 2).backward()
            inner.step()
            inner.zero_grad()
        found = flat(model), run.steps
        loss(model, x).backward()
        with pytest.raises(UsageError, match=r"with run\.no_sync\(\)"):
            loss(model, x).backward()
        return found

    found = together(master.address, 2, play)
    model, sampler = net(plain), ElasticSampler(64, global_batch=16)
    inner = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        sampler.seat([0])
        loss(model, X[sampler.share(0)]).backward()
        inner.step()
        inner.zero_grad()
        sampler.commit(sampler.used(0), [0])
    assert [steps for _, steps in found] == [3, 3]
    torch.testing.assert_close(found[0][0], flat(model), rtol=1e-5, atol=1e-6)


def test_what_nobody_used_has_no_gradient(master: Master) -> None:
    """And what one peer used has one everywhere."""

    def play(comm: Communicator, index: int) -> Any:
        model, sampler = net(Forked), ElasticSampler(64, global_batch=16)
        model.index = index
        inner = torch.optim.AdamW(model.parameters(), lr=0.1)
        run = elastic_data_parallel(model, comm, inner, sampler=sampler, bucket_cap_mb=0.0001)
        for x in run.batches(Data(), steps=2):
            loss(model, x).backward()
            grads = [p.grad is not None for p in model.parameters()]
            inner.step()
            inner.zero_grad()
        return grads, run.digest()

    found = together(master.address, 2, play)
    assert found[0] == found[1]
    assert found[0][0] == [True, True, True, True, False, False]


def test_a_backward_pass_that_raised_is_done_again(master: Master) -> None:
    """Parts of it were posted: they are not posted twice."""

    def play(comm: Communicator, index: int) -> Any:
        model, sampler = net(plain), ElasticSampler(64, global_batch=16)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        run = elastic_data_parallel(model, comm, inner, sampler=sampler, bucket_cap_mb=0.0001)
        failing = [index == 0]

        def fail(*_: Any) -> None:
            if failing.pop():
                raise MemoryError("a part of backward")
            failing.append(False)

        model[2].register_full_backward_hook(fail)
        batches = run.batches(Data(), steps=4)
        for x in batches:
            try:
                loss(model, x).backward()
            except MemoryError:
                failing.append(False)
                inner.zero_grad()
                continue
            inner.step()
            inner.zero_grad()
        return flat(model), run.digest(), sampler.ledger.returned

    found = together(master.address, 2, play)
    assert found[0][1] == found[1][1] and found[0][2] == []


def test_no_optimizer_steps_before_the_newcomer_has_all(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the optimizer changes travels beside a step. The newcomer is late to ask for it: nobody has
    changed it by then, and it has the values of before that step when it begins."""
    begun, entered = [], threading.Event()

    def late(comm: Any, state: Any, tag: int) -> Any:
        if state.revision == 0 and entered.is_set():
            time.sleep(0.7)
            begun.append(time.monotonic())
        return synchronize(comm, state, tag)

    monkeypatch.setattr(background_sync, "synchronize", late)

    def peer(newcomer: bool) -> Any:
        if newcomer:
            assert entered.wait(20)
        model, sampler = net(plain), ElasticSampler(64, global_batch=16)
        if newcomer:
            [p.data.fill_(7) for p in model.parameters()]
        inner = torch.optim.AdamW(model.parameters(), lr=0.1)
        with Communicator(master.address, config=QUICK, timeout=30) as comm:
            run = elastic_data_parallel(model, comm, inner, sampler=sampler)
            began, before, stepped, digests = run.steps, {}, {}, {}
            inner.register_step_pre_hook(lambda *_: stepped.update({run.steps: time.monotonic()}))
            for x in run.batches(Data()):
                if (step := run.steps) == 3 and not newcomer:
                    entered.set()
                    while comm.waiting == 0:
                        time.sleep(0.01)
                before[step] = flat(model)
                loss(model, x).backward()
                inner.step()
                inner.zero_grad()
                digests[run.steps] = run.digest()
                if step == 6:
                    comm.barrier()
                    return began, before, stepped, digests

    member, newcomer = in_threads([partial(peer, False), partial(peer, True)], 50)
    began = newcomer[0]
    assert began == 4 and len(begun) == 1
    torch.testing.assert_close(newcomer[1][began], member[1][began], rtol=0, atol=0)
    assert not torch.equal(member[1][began], member[1][began + 1])
    assert newcomer[3] == {step: member[3][step] for step in newcomer[3]} and len(newcomer[3]) == 3
    assert min(member[2][began + 1], newcomer[2][began + 1]) > begun[0]


def test_no_optimizer_steps_before_members_have_compared_their_states(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody comes and leaves at once. Nobody enters then, so the members' next step does not wait for a
    newcomer; one member is late to compare, and no optimizer changes a tensor before it has."""
    entered, passed, begun = threading.Event(), threading.Event(), []

    def late(comm: Any, state: Any, tag: int) -> Any:
        if passed.is_set() and comm.rank == 1:
            time.sleep(0.5)
            begun.append(time.monotonic())
        return synchronize(comm, state, tag)

    monkeypatch.setattr(background_sync, "synchronize", late)

    def member() -> Any:
        model, sampler = net(plain), ElasticSampler(64, global_batch=16)
        inner = torch.optim.AdamW(model.parameters(), lr=0.1)
        with Communicator(master.address, min_islands=2, config=QUICK, timeout=30) as comm:
            run = elastic_data_parallel(model, comm, inner, sampler=sampler)
            stepped = {}
            inner.register_step_pre_hook(lambda *_: stepped.update({run.steps: time.monotonic()}))
            for x in run.batches(Data(), steps=7):
                if run.steps == 3:
                    entered.set()
                    while comm.waiting == 0 and not passed.is_set():
                        time.sleep(0.01)
                    passed.set()
                loss(model, x).backward()
                inner.step()
                inner.zero_grad()
            found = stepped, flat(model), run.digest()
            comm.barrier()
            return found

    def passer_by() -> None:
        assert entered.wait(20)
        with Communicator(master.address, config=QUICK, timeout=30):
            assert passed.is_set()

    one, other, _ = in_threads([member, member, passer_by], 50)
    assert len(begun) == 1
    assert min(one[0][5], other[0][5]) > begun[0]
    assert torch.equal(one[1], other[1]) and one[2] == other[2]


def test_a_newcomer_with_another_model_is_refused_and_the_others_go_on(master: Master) -> None:
    entered = threading.Event()

    def member(comm: Communicator) -> Any:
        model, sampler = net(plain), ElasticSampler(64, global_batch=16)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        run = elastic_data_parallel(model, comm, inner, sampler=sampler)
        entered.set()
        after = 0
        for x in run.batches(Data()):
            loss(model, x).backward()
            inner.step()
            inner.zero_grad()
            after += comm.boundaries > 0
            if after == 5:
                return run.contributors

    def stranger() -> Any:
        entered.wait(20)
        model = net(
            lambda: torch.nn.Sequential(torch.nn.Linear(6, 9), torch.nn.Tanh(), torch.nn.Linear(9, 2))
        )
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        with Communicator(master.address, config=QUICK, timeout=30) as comm:
            sampler = ElasticSampler(64, global_batch=16)
            with pytest.raises(MismatchError, match="model 0"):
                elastic_data_parallel(model, comm, inner, sampler=sampler)

    def first() -> Any:
        with Communicator(master.address, config=QUICK) as comm:
            return member(comm), comm.id

    (contributors, own), _ = in_threads([first, stranger], 50)
    assert contributors == (own,)


def test_wrong_arguments(master: Master) -> None:
    with Communicator(master.address, config=QUICK) as comm:
        model = net(plain)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        run = elastic_data_parallel(model, comm, inner)
        with pytest.raises(UsageError, match="without a sampler"):
            next(iter(run.batches(Data())))
        with pytest.raises(UsageError, match="whole number"):
            run.samples = -1
        run.close()
        with pytest.raises(UsageError, match="pass the model's torch optimizer"):
            elastic_data_parallel(model, comm, model)
        with pytest.raises(UsageError, match="bucket_cap_mb"):
            elastic_data_parallel(model, comm, inner, bucket_cap_mb=0)
        for p in model.parameters():
            p.requires_grad_(False)
        with pytest.raises(UsageError, match="no parameter that requires a gradient"):
            elastic_data_parallel(model, comm, inner)


@pytest.mark.parametrize("lost_first", [False, True])
def test_the_master_is_started_again_and_training_goes_on(spawn: Spawn, lost_first: bool) -> None:
    """A step in which there was no master is void, or nobody knows of it; then all have the same again."""
    config = Config(heartbeat_ms=100, heartbeats_missed_max=10, master_lost_ms=500, verdict_ms=500)
    process = spawn("-m", "pccl_py", "master", "--listen", "127.0.0.1:0")
    address = expect(process, "pccl_py master at").split(";")[0]
    ready, killed, again = threading.Barrier(3), threading.Event(), threading.Event()

    def play() -> tuple[str, int, bool]:
        model, sampler = net(plain), ElasticSampler(64, global_batch=16, seed=1)
        inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        lost = False
        with Communicator(address, min_islands=2, config=config, timeout=20) as comm:
            run = elastic_data_parallel(model, comm, inner, sampler=sampler)
            while run.steps < 10:
                try:
                    for x in run.batches(Data(), steps=10):
                        if run.steps == 4 and not killed.is_set():
                            ready.wait(20)
                            assert killed.wait(20)
                        loss(model, x).backward()
                        inner.step()
                        inner.zero_grad()
                except ConnectError:  # it cannot be joined yet: the next call tries again
                    lost = True
                    assert again.wait(20)
            found = run.digest(), run.steps, lost
            comm.barrier()
            return found

    def restart() -> None:
        ready.wait(20)
        process.kill()
        process.wait()
        time.sleep(1.0 if lost_first else 0.0)  # no operation begins then
        killed.set()
        time.sleep(1.5)
        expect(spawn("-m", "pccl_py", "master", "--listen", address), "pccl_py master at")
        again.set()

    one, other, _ = in_threads([play, play, restart])
    assert one == other and one[1:] == (10, True)
