"""Ranks that save together with a remote: each sends its shard, the first the manifest; any number of them
loads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3_server import BUCKET, S3Server, free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


def run(server: S3Server, world: int, url: str, folder: str, word: str) -> list[str]:
    port = str(free_port())
    rest = [port, server.straight["endpoint_url"], url, folder, word]
    command = [sys.executable, "-m", "tests.integration.remote_ranks"]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(world), *rest], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for rank in range(world)
    ]
    try:
        said = [rank.communicate(timeout=90)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0] * world, said
    return said


@pytest.mark.nightly
@pytest.mark.deadline(200)
@pytest.mark.parametrize("folder", ["shared", "host{rank}"])
def test_ranks_lose_their_folders(server: S3Server, tmp_path: Path, folder: str) -> None:
    url = f"s3://{BUCKET}/ranks-{folder[:4]}"
    place = str(tmp_path / folder)
    run(server, 2, url, place, "save")
    names = [name.rpartition("/")[2] for name in server.fs().find(url.removeprefix("s3://"))]
    assert sorted(names) == sorted(
        2 * [f"shard-0000{rank}-of-00002.safetensors" for rank in range(2)] + 2 * ["manifest.json"]
    )
    for lost in tmp_path.iterdir():
        shutil.rmtree(lost)
    run(server, 3, url, place, "load")
