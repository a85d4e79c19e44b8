"""What keepers do next: from what all say, one thing."""

from __future__ import annotations

from typing import Any

from pccl_py.snapshot.decide import Encode, Gone, Move, Rescue, decide, needless
from pccl_py.snapshot.generation import Generation
from pccl_py.snapshot.standing import Held, Standing, Word, decode


def held(trainer: str, step: int, *, attached: bool = True, age_ms: int = 0) -> Held:
    return Held(trainer, step, 100, 10, 1, attached, age_ms)


def says(keeper: str, *snapshots: Held, known: int = 0, intact: int = 0, **more: Any) -> Standing:
    words = {name: tuple(Word(one) for one in more.get(name, ())) for name in ("wants", "hopeless", "freed")}
    one = Standing(keeper, keeper, 1, snapshots, **words, known=known, intact=intact, doubts=False)
    assert decode(one.encode()) == one
    return one


def coded(*steps: int) -> Generation:
    work = decide([says(f"k{at}", held(f"t{at}", step)) for at, step in enumerate(steps)], None)
    assert isinstance(work, Encode)
    return work.generation


def test_new_snapshots_are_coded_once_all_are_there_or_one_has_waited() -> None:
    known = coded(5, 5, 5)
    assert known.number == 1 and known.losses() == 1

    def now(*steps: int, age_ms: int = 0) -> Any:
        said = [
            says(f"k{at}", held(f"t{at}", step, age_ms=age_ms), known=1, intact=1)
            for at, step in enumerate(steps)
        ]
        return decide(said, known)

    assert now(5, 5, 5) is None
    assert now(6, 5, 6) is None
    assert {lane.step for _, lane in now(6, 6, 6).generation.places().values()} == {6}
    late = now(6, 5, 6, age_ms=3000)
    assert isinstance(late, Encode) and late.generation.number == 2
    assert late.generation.places()["t1"][1].step == 5


def test_what_is_lost_comes_back_before_anything_new() -> None:
    known = coded(5, 5, 5)
    left = [says(f"k{at}", held(f"t{at}", 7), known=1, intact=1) for at in (0, 1)]
    work = decide(left, known)
    assert isinstance(work, Rescue) and (work.lane.trainer, work.owner) == ("t2", 0)
    work = decide([*left, says("new", known=1, wants=["t2"])], known)
    assert isinstance(work, Rescue) and work.owner == 2
    kept = says("k0", held("t0", 7), held("t2", 5, attached=False), known=1, intact=1)
    work = decide([kept, left[1], says("new", known=1, wants=["t2"])], known)
    assert work == Move(known.places()["t2"][1], 0, 2)
    assert isinstance(decide([kept, left[1]], known), Encode)
    for word in ("freed", "hopeless"):
        first = says("k0", held("t0", 5), known=1, intact=1, **{word: ["t2"]})
        assert isinstance(decide([first, left[1]], known), Encode)


def test_who_comes_at_once_for_what_was_brought_back_does_not_wait_for_a_coding() -> None:
    """Which would be of keepers that are not the ones of the run any more."""
    known = coded(5, 5, 5)

    def left(age_ms: int, *, step: int = 5) -> list[Standing]:
        rescued = held("t2", 5, attached=False, age_ms=age_ms)
        return [
            says("k0", held("t0", step, age_ms=9000), rescued, known=1, intact=1),
            says("k1", held("t1", step, age_ms=9000), known=1, intact=1),
        ]

    assert decide(left(500), known) is None
    assert isinstance(decide([*left(500), says("new", known=1, wants=["t2"])], known), Move)
    assert isinstance(decide(left(1000), known), Encode)
    assert isinstance(decide(left(500, step=6), known), Encode)  # the training goes on


def test_more_losses_than_parities() -> None:
    known = coded(5, 5, 5, 5)
    said = [says(f"k{at}", held(f"t{at}", 5), known=1, intact=1) for at in (0, 1)]
    said += [says("new", known=1, wants=["t2"]), says("other", known=1, wants=["t9"])]
    work = decide(said, known)
    assert isinstance(work, Gone) and work.held and work.owner == 2
    assert "step 5 of trainer 't2' is gone: any 3 of the 4 keepers" in work.why and "k3 (k3)" in work.why
    after = decide(said[:2], known)
    assert isinstance(after, Encode)
    left = [says(f"k{at}", held(f"t{at}", 5), known=2, intact=2) for at in (0, 1)]
    again = decide([*left, says("new", known=2, wants=["t2"])], after.generation)
    assert again == Gone("t2", 2, work.why, True)
    work = decide([*said[:2], said[3]], known)
    assert isinstance(work, Gone) and not work.held and "ever had" in work.why


def test_one_that_wrote_over_its_part_cannot_help() -> None:
    known = coded(5, 5, 5)
    said = [says("k0", held("t0", 6), known=1), says("k1", held("t1", 5), known=1, intact=1)]
    assert isinstance(decide(said, known), Encode)


def test_copies_that_are_for_nobody() -> None:
    here = says("k0", held("t0", 7), held("t1", 5, attached=False), held("t2", 5, attached=False))
    lost = [here, says("k1", held("t3", 7))]
    assert needless(lost, 0, {"t9"}, set()) == ([], []), "kept for who may come"
    assert needless(lost, 0, {"t0", "t1"}, {"t1"}) == (["t1"], []), "what is freed, but for who is there"
    back = [here, says("k1", held("t1", 5), held("t2", 4))]
    assert needless(back, 0, set(), set()) == ([], ["t1"]), "t2 has less there than here"
    assert needless(back, 0, set(), {"t1"}) == ([], []), "parities are made of it"
    waiting = [here, says("k1", held("t1", 6, attached=False))]
    assert needless(waiting, 0, set(), set()) == ([], [])


def test_an_outdated_copy_is_no_way_back() -> None:
    """t1 had been brought to k0, went on at k2, and was lost there: what is coded is newer than the copy."""
    old, new = held("t1", 5, attached=False), held("t1", 6)
    work = decide([says("k0", held("t0", 6)), says("k1", held("t9", 6)), says("k2", new)], None)
    assert isinstance(work, Encode)
    known = work.generation
    left = [says(f"k{at}", mine, known=1, intact=1) for at, mine in enumerate((held("t0", 6), held("t9", 6)))]
    with_copy = says("k0", held("t0", 6), old, known=1, intact=1)
    work = decide([with_copy, left[1]], known)
    assert isinstance(work, Rescue) and (work.lane.trainer, work.lane.step) == ("t1", 6)
    assert needless([with_copy, left[1]], 0, set(), {"t0"}, known) == ([], ["t1"]), "or it were in the way"
    gone = decide([with_copy, says("new", known=1, wants=["t1"])], known)
    assert isinstance(gone, Gone) and "step 6 of trainer 't1' is gone" in gone.why


def test_what_a_trainer_gave_up_itself_is_not_brought_back() -> None:
    """It went back to step 5, and was killed before that was coded."""
    known = coded(6, 6, 6)
    said = [says(f"k{at}", held(f"t{at}", 6), known=1, intact=1) for at in (0, 1)]
    said.append(says("k2", held("t2", 5, attached=False, age_ms=1000), known=1))
    work = decide(said, known)
    assert isinstance(work, Encode) and work.generation.places()["t2"][1].step == 5
    assert needless(said, 2, set(), set(), known) == ([], [])
