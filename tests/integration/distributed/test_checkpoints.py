"""Checkpoints of several ranks: any layout saves, any other one loads it, and both hold the same bits."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from pccl_py import Master
from pccl_py.checkpoint.verify import verify_step

from .gang import Gang

LAYOUTS = [("fsdp", 4), ("hsdp", 4), ("tp", 2), ("ddp", 3), ("tp+fsdp", 4), ("plain", 1)]
# By number: which layouts load what each one has saved. All pairs are more than a test's time allows.
LOADS = {
    "fsdp": [("fsdp", 4), ("fsdp", 2), ("tp", 2), ("plain", 1)],
    "hsdp": [("fsdp", 3), ("ddp", 2)],
    "tp": [("fsdp", 4), ("tp", 4)],
    "ddp": [("fsdp", 2), ("plain", 1)],
    "tp+fsdp": [("tp+fsdp", 4), ("hsdp", 4), ("plain", 1)],
    "plain": [("fsdp", 3), ("tp", 2)],
}


@pytest.mark.parametrize(("layout", "ranks"), LAYOUTS)
def test_any_layout_is_loaded_by_others_to_the_bit(
    gang: Gang, tmp_path: Path, layout: str, ranks: int
) -> None:
    root, expected = str(tmp_path / "run"), str(tmp_path / "expected")
    said = gang.play("plays_checkpoint:save", ranks, limit_s=120, layout=layout, root=root, expected=expected)
    written = [lines[-1]["bytes"] for lines in said]
    if layout == "ddp":  # replicas are divided: nobody writes all, and together they write it once
        assert sum(written) < 1.5 * max(written) * ranks
    for other, count in LOADS[layout]:
        given = gang.play(
            "plays_checkpoint:load", count, limit_s=120, layout=other, root=root, expected=expected
        )
        if (other, count) == (layout, ranks):
            assert all(lines[-1]["exact"] and not lines[-1]["missing"] for lines in given)
        for rank, lines in enumerate(given):  # who was not there begins with its own random numbers
            assert bool(lines[-1]["missing"]) == (rank >= ranks)


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.nightly), 2])
@pytest.mark.parametrize("ways", ["store", "folder"])
def test_a_rank_killed_at_any_instant_leaves_whole_steps_and_named_errors(
    gang: Gang, tmp_path: Path, ways: str, victim: int
) -> None:
    random = Random(f"kill {victim} over the {ways}")
    root = str(tmp_path / "run")
    newest = 0
    for _ in range(2):
        said = gang.play(
            "plays_checkpoint:killed", 3, killed=(victim,), root=root, ways=ways, victim=victim,
            after_s=random.uniform(0.02, 0.6), timeout_s=2,
        )  # fmt: skip
        for rank, lines in enumerate(said):
            if rank != victim:
                heard, seconds = lines[-1]["heard"], lines[-1]["seconds"]
                assert f"rank {victim}" in heard or (victim == 0 and "store" in heard), heard
                assert seconds < 8, (heard, seconds)
        said = gang.play("plays_checkpoint:survey", 3, root=root, ways=ways)
        assert len({lines[-1]["latest"] for lines in said}) == 1
        latest = said[0][-1]["latest"] or 0
        assert latest >= newest and not said[0][-1]["leftovers"]
        newest = latest + 1  # which the survey has saved


@pytest.mark.parametrize("ways", ["store", "folder"])
def test_a_save_that_one_rank_refuses_fails_on_all_at_once_and_the_next_succeeds(
    gang: Gang, tmp_path: Path, ways: str
) -> None:
    said = [lines[-1] for lines in gang.play("plays_checkpoint:refused", 3, root=str(tmp_path), ways=ways)]
    assert "object" in said[1]["heard"]
    for each in (said[0], said[2]):
        assert "rank 1 has no shard of it" in each["heard"] and "object" in each["heard"]
        assert each["seconds"] < 5 and each["steps"] == [1, 3] and each["failed"] == 1
    assert not (tmp_path / "step-000000000002").exists()


def test_values_that_should_be_the_same_on_all_ranks_are_told_where_they_differ(
    gang: Gang, tmp_path: Path
) -> None:
    for lines in gang.play("plays_checkpoint:different", 2, root=str(tmp_path)):
        assert "rank 1 has another 'x': save it as a private part" in lines[-1]["heard"]
        assert lines[-1]["steps"] == []


@pytest.mark.parametrize("ways", ["store", pytest.param("folder", marks=pytest.mark.nightly)])
def test_a_rank_that_does_not_save_is_named_in_time(gang: Gang, tmp_path: Path, ways: str) -> None:
    for lines in gang.play("plays_checkpoint:absent", 3, root=str(tmp_path), ways=ways)[:2]:
        assert "rank 2 of 3 did not answer" in lines[-1]["heard"] and lines[-1]["seconds"] < 8


def test_ranks_of_different_speed_skip_the_same_saves(gang: Gang, tmp_path: Path) -> None:
    said = [lines[-1]["saved"] for lines in gang.play("plays_checkpoint:policies", 2, root=str(tmp_path))]
    assert said[0] == said[1] and 1 < len(said[0]) < 12


def test_hosts_with_folders_of_their_own(gang: Gang, tmp_path: Path) -> None:
    roots, hosts = str(tmp_path), [0, 0, 1, 1]
    said = gang.play("plays_checkpoint:hosts_save", 4, roots=roots, hosts=hosts, steps=[1, 2, 3])
    assert [lines[-1]["steps"] for lines in said] == [[2, 3]] * 4
    assert len(list((tmp_path / "host0" / "step-000000000003").glob("shard-*"))) == 2

    def load(ranks: int, hosts: list[int]) -> list[dict[str, Any]]:
        given = gang.play("plays_checkpoint:hosts_load", ranks, roots=roots, hosts=hosts)
        return [lines[-1] for lines in given]

    found = load(4, hosts)
    assert [each["step"] for each in found] == [3] * 4, found
    # Rank 1 on the other host would need the shard that it left behind; replicas are on every host.
    for each in load(4, [0, 1, 1, 1]):
        assert (
            each["step"] is None
            and "rank 1: " in each["heard"]
            and "shard-00001" in each["heard"]
            and "copy them here" in each["heard"]
        )
    # A host lost its copy of the manifest, as if killed before it was written: it gets it again.
    (tmp_path / "host1" / "step-000000000003" / "manifest.json").unlink()
    found = load(4, hosts)
    assert [each["step"] for each in found] == [3] * 4, found
    # A shard that is gone on one host makes all take the older step.
    next((tmp_path / "host1" / "step-000000000003").glob("shard-00003*")).unlink()
    found = load(4, hosts)
    assert [each["step"] for each in found] == [2] * 4 and "rank 3" in found[0]["heard"]
    assert [each["steps"] for each in found] == [[2]] * 4
    # And the number of that step may be used again.
    gang.play("plays_checkpoint:hosts_save", 4, roots=roots, hosts=hosts, steps=[3])
    found = load(4, hosts)
    assert [each["step"] for each in found] == [3] * 4, found


def test_damage_that_one_rank_meets_makes_all_take_the_older_step(gang: Gang, tmp_path: Path) -> None:
    roots, hosts = str(tmp_path), [0, 0, 0]
    gang.play("plays_checkpoint:hosts_save", 3, roots=roots, hosts=hosts, steps=[1, 2])
    (shard,) = (tmp_path / "host0" / "step-000000000002").glob("shard-00001*")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    said = [lines[-1] for lines in gang.play("plays_checkpoint:hosts_load", 3, roots=roots, hosts=hosts)]
    assert [each["step"] for each in said] == [1] * 3
    assert all(shard.name in each["heard"] and "block" in each["heard"] for each in said)
    gang.play("plays_checkpoint:hosts_save", 3, roots=roots, hosts=hosts, steps=[3])


def test_dcp_code_saves_and_loads_through_our_doors(gang: Gang, tmp_path: Path) -> None:
    root, expected = str(tmp_path / "run"), str(tmp_path / "expected")
    said = gang.play("plays_checkpoint:dcp_save", 3, root=root, expected=expected)
    assert "StateError" in said[0][-1]["heard"] or "cannot" in said[0][-1]["heard"], said[0][-1]
    for number in (1, 2, 3):
        step = Path(root) / str(number)
        assert verify_step(step).sound and len(list(step.iterdir())) == 4
        for file in step.iterdir():  # nothing that was pickled: no opcode of torch's archives, no zip
            assert b"PK\x03\x04" not in file.read_bytes() or file.suffix == ".safetensors"
    for layout, ranks in (("fsdp", 3), ("fsdp", 2), ("plain", 1)):
        gang.play("plays_checkpoint:dcp_load", ranks, root=root, expected=expected, layout=layout)


def test_ranks_that_hear_of_each_other_over_a_communicator(gang: Gang, tmp_path: Path) -> None:
    with Master() as master:
        options = {"root": str(tmp_path / "run"), "address": master.address}
        said = gang.play("plays_checkpoint:over_communicator", 3, victim=None, **options)
        assert [lines[-1]["latest"] for lines in said] == [6] * 3
    with Master() as master:
        options["address"] = master.address
        said = gang.play("plays_checkpoint:over_communicator", 3, victim=1, killed=(1,), **options)
        for lines in (said[0], said[2]):
            assert "rank 1 of 3 is gone" in lines[-2]["heard"] and lines[-2]["seconds"] < 15
            assert lines[-1]["latest"] in (9, 10)
    with Master() as master:  # and the next run loads what is there
        options["address"] = master.address
        gang.play("plays_checkpoint:over_communicator", 3, victim=None, **options)
