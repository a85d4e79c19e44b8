"""Islands of FSDP ranks, in processes that are killed: they leave whole, come back whole, and never part."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from pccl_py import Master
from pccl_py.parallel import Island
from tests.threads import in_threads

from .gang import Gang
from .plays_islands import CALM, QUICK, loss_of, net

Said = list[list[dict[str, Any]]]


@pytest.fixture
def master() -> Iterator[Master]:
    with Master(config=CALM) as running:
        yield running


@pytest.fixture
def quick_master() -> Iterator[Master]:
    """Soon takes a rank for dead that is stopped."""
    with Master(config=QUICK) as running:
        yield running


def by_step(lines: list[dict[str, Any]], key: str = "step") -> dict[int, tuple[int, str]]:
    """Contributors and digest."""
    return {line[key]: (line["of"], line.get("digest", "")) for line in lines if key in line}


def the(lines: list[dict[str, Any]], key: str) -> Any:
    return next(line for line in lines if key in line)[key]


def check_alike(said: Said, ranks: list[int], key: str = "step") -> None:
    """Rank r of all these islands held the same bits after each step that both took."""
    for place in (0, 1):
        first, *others = [by_step(said[rank], key) for rank in ranks if rank % 2 == place]
        for other in others:
            common = first.keys() & other.keys()
            assert common and all(first[step] == other[step] for step in common)
    check_ends(said, ranks)


def check_ends(said: Said, ranks: list[int]) -> None:
    ends = {rank: the(said[rank], "end") for rank in ranks}
    assert len(set(ends.values())) == 2, ends
    assert all(end == ends[rank % 2] for rank, end in ends.items())


@pytest.mark.parametrize("kind", ["fsdp2", "fsdp1", "fsdp1 parameters"])
def test_islands_train_as_one(gang: Gang, master: Master, kind: str) -> None:
    said = gang.play("plays_islands:train", 4, address=master.address, kind=kind)
    check_alike(said, [0, 1, 2, 3])
    assert [by_step(lines)[5][0] for lines in said] == [2] * 4


def test_two_islands_are_data_parallel_training(gang: Gang, master: Master) -> None:
    """The mean of all four ranks' gradients, AdamW: one process that sees all batches gets the same."""
    said = gang.play("plays_islands:train", 4, address=master.address)
    wanted = [one_process(number) for number in (0, 1)]
    [began] = [  # the island that came first gave its weights to all
        number
        for number in (0, 1)
        if torch.allclose(torch.tensor(the(said[0], "values")), wanted[number][0], atol=1e-5)
    ]
    assert torch.allclose(torch.tensor(the(said[1], "values")), wanted[began][1], atol=1e-5)


def one_process(number: int) -> list[torch.Tensor]:
    """What either rank of an island holds in the end, where all began with island `number`'s weights."""
    model = net(number)
    inner = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(6):
        (sum(loss_of(model, step, rank) for rank in range(4)) / 4).backward()
        inner.step()
        inner.zero_grad()
    halves = [[p.detach().chunk(2)[place:][:1] for p in model.parameters()] for place in (0, 1)]
    return [torch.cat([half[0].reshape(-1) for half in each if half]) for each in halves]


DEATHS = [
    ("fsdp2", "gloo", 3, "forward"),
    ("fsdp2", "gloo", 2, "backward"),
    ("fsdp2", "gloo", 3, "reduce"),
    ("fsdp2", "gloo", 2, "optimizer"),
    ("fsdp1", "gloo", 2, "backward"),
    ("fsdp1 parameters", "gloo", 3, "reduce"),
    ("fsdp2", "pccl", 3, "forward"),
    ("fsdp2", "pccl", 2, "backward"),
    ("fsdp2", "pccl", 2, "reduce"),
]


@pytest.mark.parametrize(("kind", "backend", "victim", "at"), DEATHS)
def test_an_island_is_lost_and_replaced(
    gang: Gang, master: Master, kind: str, backend: str, victim: int, at: str
) -> None:
    play: dict[str, Any] = {"kind": kind, "backend": backend, "victim": victim, "at": at}
    said = gang.play("plays_islands:train", 6, killed=(victim,), address=master.address, **play)
    check_alike(said, [0, 1, 4, 5])
    sibling = 5 - victim
    assert the(said[sibling], "lost").startswith(f"rank {victim % 2} of this island is gone: peer ")
    steps = by_step(said[0])
    assert steps[1][0] == 2 and sorted(steps) == list(range(len(steps)))  # none is left out
    assert (2 in by_step(said[sibling])) == (at == "optimizer")  # its commit was before
    healed = min(by_step(said[4]))
    assert healed > 2 and steps[healed][0] == 2
    assert all(steps[step][0] == (1 if step < healed else 2) for step in range(3, len(steps)))


@pytest.mark.parametrize(("paused", "hook"), [([2, 3], False), ([3], False), ([2], True)])
def test_an_evicted_island_that_lives_comes_back_by_itself(
    gang: Gang, quick_master: Master, paused: list[int], hook: bool
) -> None:
    said = gang.play("plays_islands:pausing", 4, address=quick_master.address, paused=paused, hook=hook)
    check_alike(said, [0, 1, 2, 3])
    steps, back = by_step(said[0]), sorted(by_step(said[2]))
    assert back[:2] == [0, 1] and back[2] > 2
    assert steps[2][0] == 1 and steps[back[2]][0] == 2


def test_a_silent_sibling_ends_the_wait_in_a_collective(gang: Gang, quick_master: Master) -> None:
    """gloo cannot be aborted: it is left at inner_timeout, with the master's reason."""
    said = gang.play("plays_islands:stuck", 4, killed=(3,), address=quick_master.address, inner_timeout=3)
    assert "rank 1 of this island is gone: peer" in the(said[2], "lost") and "silent" in the(said[2], "lost")
    assert the(said[2], "seconds") < 8
    assert the(said[0], "end") and the(said[1], "end")


NIGHTLY = pytest.mark.nightly


@pytest.mark.parametrize(
    ("family", "kind", "victim", "at"),
    [
        ("diloco", "fsdp2", 3, "outer"),
        ("diloco", "fsdp2", 2, "inner"),
        ("diloco", "fsdp1", 2, "outer"),
        ("streaming", "fsdp2", 3, "flight"),
        pytest.param("streaming", "fsdp2", 2, "outer", marks=NIGHTLY),
        pytest.param("async", "fsdp2", 3, "flight", marks=NIGHTLY),
        pytest.param("async", "fsdp1", 2, "outer", marks=NIGHTLY),
    ],
)
def test_diloco_on_islands_survives_a_death(
    gang: Gang, master: Master, family: str, kind: str, victim: int, at: str
) -> None:
    play: dict[str, Any] = {"family": family, "kind": kind, "victim": victim, "at": at}
    said = gang.play("plays_islands:windows", 6, killed=(victim,), address=master.address, **play)
    check_alike(said, [0, 1, 4, 5], "window")
    windows = by_step(said[0], "window")
    assert sorted(windows) == list(range(1, len(windows) + 1))
    assert the(said[4], "begins") > 2 and 1 in [of for of, _ in windows.values()]
    assert "is gone" in the(said[5 - victim], "lost")


@pytest.mark.parametrize(
    ("case", "sharding", "outputs"),
    [
        *((case, "fsdp2", 3) for case in ("rda", "clip", "gap", "lookahead", "streaming")),
        ("clip", "fsdp1", 3),
        ("gap", "fsdp1", 3),
        ("rda", "fsdp2", 1),
        ("gap", "fsdp2", 1),
    ],
)
def test_rules_that_look_at_norms_see_the_whole_model(
    gang: Gang, master: Master, case: str, sharding: str, outputs: int
) -> None:
    """Islands of two ranks get what two peers with whole models get, from the same batches."""
    play = partial(gang.play, "plays_islands:ruled", address=master.address, case=case, outputs=outputs)
    parts = play(4, sharding=sharding)
    check_alike(parts, [0, 1, 2, 3], "window")
    whole = play(2, sharding="")
    wanted = torch.tensor(the(whole[0], "values"))
    assert the(whole[0], "values") == the(whole[1], "values")
    if sharding == "fsdp2":
        layout = [p.detach().chunk(2) for p in _like(wanted, outputs)]
        for place in (0, 1):
            mine = torch.cat([part[place].reshape(-1) for part in layout if len(part) > place])
            torch.testing.assert_close(torch.tensor(the(parts[place], "values")), mine, rtol=1e-4, atol=1e-5)
    assert len({the(lines, "norm") for lines in parts}) == 1
    total = sum(torch.tensor(the(lines, "values")).square().sum() for lines in parts[:2])
    torch.testing.assert_close(total, wanted.square().sum(), rtol=1e-4, atol=0)


def _like(flat: torch.Tensor, outputs: int) -> list[torch.Tensor]:
    model = net(0)
    model[2] = torch.nn.Linear(12, outputs)
    torch.nn.utils.vector_to_parameters(flat, model.parameters())
    return list(model.parameters())


@pytest.mark.parametrize("case", ["dynamic", "quorum", "copy"])
def test_ranks_of_an_island_take_the_same_steps(gang: Gang, master: Master, case: str) -> None:
    said = gang.play("plays_islands:ruled", 4, address=master.address, case=case)
    check_alike(said, [0, 1, 2, 3], "window")
    steps = [the(lines, "steps") for lines in said]
    assert steps[0] == steps[1] and steps[2] == steps[3]
    assert (steps[0] == steps[2]) == (case == "copy"), "the second island is slower"


@pytest.mark.parametrize("family", ["streaming", pytest.param("async", marks=NIGHTLY)])
def test_averages_travel_while_islands_train(gang: Gang, master: Master, family: str) -> None:
    said = gang.play("plays_islands:overlapping", 4, address=master.address, family=family)
    check_ends(said, [0, 1, 2, 3])
    assert [the(lines, "arrived") for lines in said] == [4] * 4


@pytest.mark.parametrize(
    "family", ["streaming", *(pytest.param(f, marks=NIGHTLY) for f in ("async", "diloco"))]
)
def test_diloco_on_dtensors_with_uneven_and_empty_shards(gang: Gang, master: Master, family: str) -> None:
    said = gang.play("plays_islands:dtensors", 4, address=master.address, family=family)
    check_ends(said, [0, 1, 2, 3])
    sizes = [{key: len(part) for key, part in the(lines, "parts").items()} for lines in said]
    assert sizes[0] == {"uneven": 4, "empty": 2, "columns": 10, "kept": 8} == sizes[2]
    assert sizes[1] == {"uneven": 2, "empty": 0, "columns": 5, "kept": 8} == sizes[3]
    for key, begin in {"uneven": 6, "empty": 2, "columns": 15, "kept": 8, "hybrid": 6, "plain": 6}.items():
        wholes = [torch.tensor(the(lines, "wholes")[key]).flatten() for lines in said]
        assert all(torch.equal(whole, wholes[0]) for whole in wholes)
        if family == "diloco":
            torch.testing.assert_close(wholes[0], pulled(torch.arange(begin) * 1.0), rtol=1e-5, atol=1e-5)
    for place in (0, 1):  # ranks of a place share the samples of that place
        shares = [the(said[rank], "share") for rank in (place, 2 + place)]
        assert sorted(shares[0] + shares[1]) == list(range(48))
    own = [torch.tensor(the(lines, "own")) for lines in said]
    assert torch.equal(own[0], own[2]) and torch.equal(own[1], own[3])
    assert float((own[1] - own[0]).abs().min()) > 0.1, "what is a rank's own stays so"


def test_copies_on_the_ranks_of_an_island_get_the_same_gradients(gang: Gang, master: Master) -> None:
    said = gang.play("plays_islands:copied_gradients", 4, address=master.address)
    before, after = ([the(lines, when) for lines in said] for when in ("before", "after"))
    for key in ("kept", "plain"):
        assert all(each[key] == after[0][key] for each in after)
        mean = torch.tensor([each[key] for each in before[::2]]).mean(0)
        torch.testing.assert_close(torch.tensor(after[0][key]), mean, rtol=1e-2, atol=1e-2)
    for place in (0, 1):
        assert after[place]["own"] == after[2 + place]["own"]
    assert after[0]["own"] != after[1]["own"]


def pulled(theta: torch.Tensor) -> torch.Tensor:
    """DiLoCo in one process: four windows of three steps towards 1 and 2, SGD(0.1), Nesterov (0.7, 0.9)."""
    momentum = torch.zeros_like(theta)
    for _ in range(4):
        mean = sum((theta - (aim + (theta - aim) * 0.9**3)) / 2 for aim in (1.0, 2.0))
        momentum = 0.9 * momentum + mean
        theta = theta - 0.7 * (mean + 0.9 * momentum)
    return theta


@pytest.mark.parametrize(
    "family", ["diloco", *(pytest.param(name, marks=NIGHTLY) for name in ("streaming", "async"))]
)
def test_diloco_on_an_evicted_island_rejoins(gang: Gang, quick_master: Master, family: str) -> None:
    play = partial(gang.play, "plays_islands:windows", address=quick_master.address, kind="fsdp2")
    said = play(4, family=family, paused=2)
    check_alike(said, [0, 1, 2, 3], "window")
    assert [the(lines, "rejoins") for lines in said] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("case", "ours", "theirs"),
    [
        ("world size", "'0.bias float32 [12] Shard(0) over 2'", "'0.bias float32 [12] Shard(0) over 1'"),
        (
            "sharding",
            "'0.weight float32 [12, 6] Shard(0) over 2'",
            "'0.weight float32 [12, 6] Shard(1) over 2'",
        ),
        ("model", "'0.bias float32 [12] Shard(0) over 2'", "'0.bias float32 [16] Shard(0) over 2'"),
        ("dtype", "'0.bias float32 [12] Shard(0) over 2'", "'0.bias float64 [12] Shard(0) over 2'"),
        ("optimizer", "'optimizer AdamW, 4 parameters amsgrad", "'optimizer Adagrad, 4 parameters"),
    ],
)
def test_an_island_that_does_not_fit_is_told_why(
    gang: Gang, master: Master, case: str, ours: str, theirs: str
) -> None:
    said = gang.play("plays_islands:strangers", 4, address=master.address, case=case)
    for lines in said[2:3] if case == "world size" else said[2:]:
        assert ours in the(lines, "refused") and theirs in the(lines, "refused")
        assert "layout:" not in the(lines, "refused") and the(lines, "seconds") < 5
    assert [the(lines, "end") for lines in said[:2]] == [1, 1]


def test_an_island_half_up_is_told_who_is_missing(gang: Gang, master: Master) -> None:
    said = gang.play("plays_islands:half_up", 6, killed=(3,), address=master.address)
    assert "rank 1 of island 'b' has not come" in the(said[2], "late")
    assert the(said[2], "seconds") < 5
    assert the(said[0], "end") == the(said[4], "end") and the(said[1], "end") == the(said[5], "end")


def test_shards_averages_and_wrong_calls(gang: Gang, master: Master) -> None:
    said = gang.play("plays_islands:ways", 4, address=master.address)
    elected = int(the(said[0], "extra")[0])  # the island that came first
    for rank, lines in enumerate(said):
        number, place = divmod(rank, 2)
        assert the(lines, "place") == ["ab"[number], place, 2, 2] and the(lines, "steps") == 0
        assert the(lines, "values") == the(said[2 * elected + place], "began")
        assert the(lines, "extra") == [float(elected)] * 3
        assert the(lines, "written") == [1.0 + number]
        [average] = the(lines, "averaged")
        assert average == pytest.approx(5 / 3) and the(lines, "weight") == 3 and the(lines, "of") == 2
        assert the(lines, "summed") == [2.0 * place + 2]
        assert "call backward() first" in the(lines, "no_gradient")
        assert "before the first boundary" in the(lines, "set_steps")
        assert "exists already" in the(lines, "with_name")
        assert "needs a name" in the(lines, "nameless")


def test_ranks_of_one_island_must_have_one_model(gang: Gang, master: Master) -> None:
    said = gang.play("plays_islands:other_siblings", 2, address=master.address)
    for lines in said:
        assert "ranks 0 and 1 of this island have models" in the(lines, "refused")["error"]


def test_several_islands_in_one_job(gang: Gang, master: Master) -> None:
    said = gang.play("plays_islands:one_job", 4, address=master.address)
    check_alike(said, [0, 1, 2, 3])
    assert [the(lines, "place") for lines in said] == [["a", 0, 2], ["a", 1, 2], ["b", 0, 2], ["b", 1, 2]]
    assert all(of == 2 for lines in said for of, _ in by_step(lines).values())


def test_an_island_of_one_process_needs_no_torch_distributed(master: Master) -> None:
    """And a third one that comes later has what the others have."""
    begun = threading.Event()

    def play(index: int) -> tuple[str, int]:
        model = torch.nn.Linear(6, 3)
        torch.nn.init.constant_(model.weight, float(index))
        inner = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if index == 2:
            assert begun.wait(20)
        founders = 2 if index < 2 else 1
        with Island(
            master.address, model, inner, name=f"i{index}", config=CALM, min_islands=founders
        ) as island:
            last = 400
            while island.steps < last:
                with island.step():
                    last = min(last, island.steps + 3) if island.admissions else last
                    loss_of(model, island.steps, index).backward()
                    of = len(island.all_reduce_gradients().contributors)
                    inner.step()
                    inner.zero_grad()
                begun.set()
                time.sleep(0.01)
            return island.digest(), of

    digests, counts = zip(*in_threads([partial(play, index) for index in range(3)]), strict=True)
    assert len(set(digests)) == 1 and counts == (3, 3, 3)
