"""Exchanges between ranks: nobody's words are taken away before all have read them, whatever else goes on."""

from __future__ import annotations

import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pccl_py.checkpoint.coordination import KEPT, Board, Missing
from pccl_py.checkpoint.folder_coordination import FolderCoordination
from pccl_py.errors import CheckpointError
from pccl_py.state.boxed import World
from tests.threads import in_threads

RANKS = 3


def store_boards() -> list[Board]:
    dist = pytest.importorskip("torch.distributed")
    from pccl_py.checkpoint.store_coordination import StoreCoordination

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    boards: list[Board] = [
        StoreCoordination(dist.PrefixStore("x", store), World(r, RANKS)) for r in range(RANKS)
    ]
    boards[0].hold = store  # type: ignore[attr-defined]  # as long as the boards
    return boards


def folder_boards(root: Path) -> list[Board]:
    return in_threads(
        [partial(FolderCoordination, root, World(rank, RANKS), 20) for rank in range(RANKS)], 30
    )


def boards_of(ways: str, root: Path) -> list[Board]:
    return store_boards() if ways == "store" else folder_boards(root)


@pytest.mark.parametrize("ways", ["store", "folder"])
def test_two_channels_with_slow_readers_never_lose_words(ways: str, tmp_path: Path) -> None:
    boards = boards_of(ways, tmp_path)

    def talk(channel: str, board: Board) -> None:
        pace = random.Random(f"{channel} {board.world.rank}")
        for number in range(25):
            time.sleep(pace.choice([0, 0, 0, 0.01]))
            words = f"{channel} {number} of {board.world.rank}".encode()
            if channel == "save":  # as commits are: one rank reads what all give, then all what it gives
                got = board.exchange(f"save/{number}/shard", words, 20, readers=[0])
                assert len(got) == (RANKS if board.world.rank == 0 else 0)
                got = board.exchange(f"save/{number}/done", words, 20, writers=[0])
                assert got == [f"save {number} of 0".encode()]
            else:
                got = board.exchange(f"load/{number}", words, 20)
                assert got == [f"load {number} of {rank}".encode() for rank in range(RANKS)]

    in_threads([partial(talk, channel, board) for channel in ("save", "load") for board in boards], 50)
    for board in boards:
        assert sum(map(len, board._given.values())) <= 2 * KEPT + 2 or board.world.rank != 0


@pytest.mark.parametrize("ways", ["store", "folder"])
def test_large_and_empty_words(ways: str, tmp_path: Path) -> None:
    boards = boards_of(ways, tmp_path)
    words = [random.Random(1).randbytes(9 << 20), b"", b"\0\xff"]

    def give(board: Board) -> Any:
        return board.exchange("a/1", words[board.world.rank], 40)

    assert in_threads([partial(give, board) for board in boards], 50) == [words] * RANKS


@pytest.mark.parametrize("ways", ["store", "folder"])
def test_who_is_missing_is_named_and_a_wait_can_be_ended(ways: str, tmp_path: Path) -> None:
    board = boards_of(ways, tmp_path)[0]
    with pytest.raises(Missing, match="a/1: rank 1, 2 of 3 did not answer for 0.1 s") as caught:
        board.exchange("a/1", b"", 0.1)
    assert caught.value.ranks == (1, 2)
    threading.Timer(0.1, board.stop).start()
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match="closed while it waited"):
        board.exchange("a/2", b"", 60)
    assert time.monotonic() - begun < 10


def test_a_restarted_rank_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    """All hellos of an earlier session are there; only those that name the new words count."""
    first = folder_boards(tmp_path)
    first[0].exchange("a/1", b"old", 0.1, writers=[0])
    with pytest.raises(Missing, match="rank 1, 2 of 3"):
        FolderCoordination(tmp_path, World(0, RANKS), 0.3)
    second = folder_boards(tmp_path)
    with pytest.raises(Missing):
        second[1].exchange("a/1", b"", 0.1, writers=[0])  # the word of the session before is not heard
    assert len([path for path in (tmp_path / ".ranks").iterdir() if path.is_dir()]) == 1
