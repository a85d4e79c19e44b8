"""Checkpoints at a remote: a real S3 server in its own process, lost local folders, lost and damaged
objects."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pccl_py as pccl
from pccl_py.checkpoint import lease, patience
from pccl_py.checkpoint.upload_queue import SLACK, WAITING_MAX
from pccl_py.cli import main
from pccl_py.errors import BusyError, CheckpointError, DamagedError, NoCheckpointError, UsageError
from tests.s3_server import BUCKET, S3Server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
MIB = 1 << 20
AWAY_S = 150.0
HELD_MAX = 1 + 1 + WAITING_MAX + SLACK  # kept, being sent, waiting


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as running:
        yield running


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    return f"s3://{BUCKET}/{request.node.name}"


def tensors(step: int, count: int = 2, elements: int = MIB) -> dict[str, torch.Tensor]:
    return {
        f"w{index}": torch.from_numpy(
            np.random.default_rng([step, index]).standard_normal(elements, np.float32)
        )
        for index in range(count)
    }


def blank(count: int = 2, elements: int = MIB) -> dict[str, torch.Tensor]:
    return {f"w{index}": torch.zeros(elements) for index in range(count)}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def saver(url: str, local: Path, server: S3Server, **options: Any) -> pccl.Checkpointer:
    return pccl.Checkpointer(url, local=local, remote_options=server.options, timeout_s=60.0, **options)


def names(server: S3Server, url: str) -> list[str]:
    place = url.removeprefix("s3://")
    return sorted(name.removeprefix(place + "/") for name in server.fs().find(place))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_what_the_local_folder_has_lost_comes_back(
    server: S3Server, url: str, tmp_path: Path, compression: Any
) -> None:
    url = url.replace("[", "-").replace("]", "")
    with saver(url, tmp_path / "a", server, compression=compression, keep=3) as saving:
        for step in (10, 20, 30):
            saving.save(step, {"x": tensors(step)})
        saving.wait(level="remote")
        assert saving.stats.uploaded == 3 and saving.stats.uploaded_step == 30
        assert saving.stats.remote_fault is None and saving.stats.upload_retries == 0
        raw = 3 * 2 * 4 * MIB
        assert saving.stats.uploaded_bytes < raw * 0.95 if compression else saving.stats.uploaded_bytes >= raw
    suffix = ".zst" if compression else ""
    assert names(server, url) == [
        f"step-0000000000{step}/{file}"
        for step in (10, 20, 30)
        for file in ("manifest.json", f"shard-00000-of-00001.safetensors{suffix}")
    ]
    shutil.rmtree(tmp_path / "a")
    with saver(url, tmp_path / "b", server) as loading:
        assert (
            loading.steps() == [10, 20, 30] and loading.latest() == 30 and loading.steps(level="local") == []
        )
        state = blank()
        info = loading.load({"x": state})
        assert info.step == 30 and info.fetched > 8 * MIB and equal(state, tensors(30))
        assert loading.steps(level="local") == [30] and loading.verify(30).sound
        assert loading.load({"x": state}).fetched == 0  # it is here now
        assert loading.load({"x": state}, 10).step == 10 and equal(state, tensors(10))
        assert loading.verify(20, level="remote").sound
        with pytest.raises(NoCheckpointError, match="step 25"):
            loading.load({"x": state}, 25)


def test_a_damaged_or_lost_local_file_is_mended_from_the_remote(
    server: S3Server, url: str, tmp_path: Path
) -> None:
    with saver(url, tmp_path, server) as saving:
        saving.save(1, {"x": tensors(1)})
        saving.save(2, {"x": tensors(2)})
        saving.wait(level="remote")
        (shard,) = (tmp_path / "step-000000000002").glob("shard-*")
        data = bytearray(shard.read_bytes())
        data[5 * MIB] ^= 1
        shard.write_bytes(data)
        state = blank()
        info = saving.load({"x": state})
        assert (
            info.step == 2 and info.fetched == len(data) and equal(state, tensors(2)) and info.skipped == ()
        )
        shard.unlink()
        assert saving.load({"x": state}).fetched == len(data) and equal(state, tensors(2))
        (tmp_path / "step-000000000002" / "manifest.json").write_bytes(b"{}")
        info = saving.load({"x": state}, 2)
        assert info.fetched == 0 and equal(state, tensors(2)) and saving.verify(2).sound


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damaged_remote_objects_are_named_and_an_older_step_taken(
    server: S3Server, url: str, tmp_path: Path, compression: Any
) -> None:
    url = url.replace("[", "-").replace("]", "")
    with saver(url, tmp_path / "a", server, compression=compression, keep=9) as saving:
        for step in range(1, 6):
            saving.save(step, {"x": tensors(step)})
            saving.wait(level="remote")  # else older ones are left out
    fs = server.fs()
    suffix = ".zst" if compression else ""

    def place(step: int, file: str = f"shard-00000-of-00001.safetensors{suffix}") -> str:
        return f"{url.removeprefix('s3://')}/step-{step:012d}/{file}"

    whole = fs.cat_file(place(5))
    rng = np.random.default_rng(5)
    with saver(url, tmp_path / "b", server) as loading:
        state = blank()
        spots = [0, len(whole) - 1, len(whole) - 40, *rng.integers(0, len(whole), 5).tolist()]
        for spot in spots:
            data = bytearray(whole)
            data[spot] ^= 1 << int(rng.integers(8))
            fs.pipe_file(place(5), bytes(data))
            report = loading.verify(5, level="remote")
            assert not report.sound and report.damages[0].file.startswith("shard-"), spot
        info = loading.load({"x": state})
        assert info.step == 4 and equal(state, tensors(4))
        ((step, why),) = info.skipped
        assert step == 5 and "shard-00000" in why and "remote" in why
        assert not (tmp_path / "b" / "step-000000000005").exists()
        for step, damage in ((4, "cut"), (3, "gone"), (2, "other")):
            shutil.rmtree(tmp_path / "b" / f"step-{step:012d}", ignore_errors=True)
            good = fs.cat_file(place(step))
            if damage == "cut":
                fs.pipe_file(place(step), good[: len(good) // 2])
            elif damage == "gone":
                fs.rm_file(place(step))
            else:
                fs.pipe_file(place(step), fs.cat_file(place(1)))
            with pytest.raises(DamagedError, match="shard-00000"):
                loading.load({"x": state}, step)
        manifest = bytearray(fs.cat_file(place(1, "manifest.json")))
        assert loading.load({"x": state}).step == 1 and equal(state, tensors(1))
        manifest[len(manifest) // 2] ^= 4
        shutil.rmtree(tmp_path / "b" / "step-000000000001")
        fs.pipe_file(place(1, "manifest.json"), bytes(manifest))
        with pytest.raises(NoCheckpointError, match="manifest.json"):
            loading.load({"x": state})


def test_names_that_lead_elsewhere_are_left_alone(server: S3Server, url: str, tmp_path: Path) -> None:
    with saver(url, tmp_path / "a", server) as saving:
        saving.save(1, {"x": tensors(1)})
        saving.wait(level="remote")
    fs, place = server.fs(), url.removeprefix("s3://")
    body = fs.cat_file(f"{place}/step-000000000001/manifest.json")
    fs.call_s3(
        "put_object",
        Bucket=BUCKET,
        Key=f"{place.partition('/')[2]}/step-000000000009/../../../etc/x",
        Body=b"x",
    )
    fs.pipe_file(f"{place}/step-000000000007/manifest.json", body)  # of another step
    import hashlib
    import json

    head, _, rest = body.partition(b"\n")
    evil = rest.removesuffix(b"\n}\n").replace(b"shard-00000-of-00001.safetensors", b"../../evil.safetensors")
    digest = hashlib.sha256(evil).hexdigest()
    head = head.replace(json.loads(head + b"0}")["sha256"].encode(), digest.encode())
    fs.pipe_file(f"{place}/step-000000000008/manifest.json", head + b"\n" + evil + b"\n}\n")
    with saver(url, tmp_path / "b" / "c", server) as loading:
        state = blank()
        info = loading.load({"x": state})
        assert info.step == 1 and equal(state, tensors(1)) and [step for step, _ in info.skipped] == [8, 7]
        assert "shard" in info.skipped[0][1] and "of step 1" in info.skipped[1][1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["c"]


def test_retention_at_the_remote(server: S3Server, url: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"remote_every": 2, "remote_keep": 2, "remote_keep_every": 6, "keep": 1}
    with saver(url, tmp_path, server, **options) as saving:
        for step in range(1, 13):
            saving.save(step, {"x": tensors(step, 1, 1000)})
            saving.wait(level="remote")
        assert saving.steps(level="remote") == [6, 10, 12] and saving.steps(level="local") == [12]
        assert saving.stats.remote_retired == 3 and saving.stats.uploaded == 6
        state = blank(1, 1000)
        for step in saving.steps():
            saving.load({"x": state}, step)
            assert equal(state, tensors(step, 1, 1000))
    assert len(names(server, url)) == 6


def test_the_bandwidth_is_kept(server: S3Server, url: str, tmp_path: Path) -> None:
    """Never more, and all of it in one of three turns: something else may take the machine meanwhile."""
    cap = 24 * MIB
    rates: list[float] = []
    with saver(url, tmp_path, server, remote_bandwidth=cap) as saving:
        while len(rates) < 3 and max(rates, default=0) < 0.8 * cap:
            saving.save(len(rates), {"x": tensors(len(rates), 6, 4 * MIB)})
            saving.wait()
            sent, begun = server.sent, time.perf_counter()
            saving.wait(level="remote")
            rates.append((server.sent - sent) / (time.perf_counter() - begun))
    assert 0.8 * cap <= max(rates) <= 1.2 * cap, [f"{rate / MIB:.1f} MiB/s" for rate in rates]


@pytest.mark.deadline(120)
def test_a_remote_that_is_away_ends_no_training_and_is_caught_up(
    server: S3Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.5)
    with pccl.Checkpointer(
        url, local=tmp_path, remote_options=server.options, timeout_s=4.0, keep=1, remote_bandwidth=40 * MIB
    ) as saving:
        saving.save(1, {"x": tensors(1, 4, 4 * MIB)})
        saving.wait()
        time.sleep(0.7)  # some parts are there
        server.shut_door()
        try:
            deadline = time.monotonic() + 20
            told = 0
            step = 1
            while time.monotonic() < deadline and not told:
                step += 1
                try:
                    saving.save(step, {"x": tensors(step, 1, 1000)})
                    saving.wait()
                except CheckpointError as error:
                    told += 1
                    assert "cannot" in str(error) and str(tmp_path) in str(error)
                time.sleep(0.3)
            assert told == 1 and saving.stats.remote_fault and saving.stats.upload_retries > 3
            held = saving.steps(level="local")
            assert 1 in held and len(held) <= HELD_MAX  # it is under way; others do not fill the disk
            assert saving.load({"x": blank(1, 1000)}).step >= step - 1
        finally:
            server.open_door()
        saving.wait(30, level="remote")
        assert saving.stats.remote_fault is None and saving.stats.upload_failed == 0
        newest = saving.latest()
        assert (
            newest is not None
            and newest in saving.steps(level="remote")
            and 1 in saving.steps(level="remote")
        )
        saving.save(1000, {"x": tensors(1000, 1, 1000)})
        saving.wait(level="remote")
        assert saving.steps(level="local") == [1000]  # nothing is held any more
    shutil.rmtree(tmp_path)
    with saver(url, tmp_path, server) as loading:
        state = blank(4, 4 * MIB)
        loading.load({"x": state}, 1)
        assert equal(state, tensors(1, 4, 4 * MIB))


@pytest.mark.nightly
@pytest.mark.deadline(420)
def test_a_remote_that_is_away_for_minutes(server: S3Server, url: str, tmp_path: Path) -> None:
    """With the pauses that users have. One error says so, saves go on, retries grow rare."""
    options: dict[str, Any] = {"keep": 1, "remote_keep": 3, "timeout_s": 20.0}
    with pccl.Checkpointer(url, local=tmp_path, remote_options=server.options, **options) as saving:
        saving.save(1, {"x": tensors(1, 1, 1000)})
        saving.wait(level="remote")
        threads = threading.active_count()
        server.shut_door()
        try:
            begun, step, told, blocked = time.monotonic(), 1, [], 0.0
            while time.monotonic() - begun < AWAY_S:
                step += 1
                called = time.perf_counter()
                try:
                    saving.save(step, {"x": tensors(step, 1, 1000)})
                except CheckpointError as error:
                    told.append(str(error))
                blocked = max(blocked, time.perf_counter() - called)
                time.sleep(1.0)
        finally:
            server.open_door()
        assert len(told) == 1 and "uploading is tried on" in told[0] and blocked < 2.0, (told, blocked)
        assert saving.stats.remote_fault and AWAY_S / 15 / 4 < saving.stats.upload_retries < AWAY_S / 4
        assert threading.active_count() <= threads + 8
        saving.wait()
        held = saving.steps(level="local")
        assert step > 60 and len(held) <= HELD_MAX, "what waits for the remote must not fill the disk"
        saving.wait(120, level="remote")
        assert saving.stats.upload_skipped > 50
        assert saving.steps(level="remote")[-1] == saving.latest() and saving.stats.upload_failed == 0
        assert saving.stats.remote_fault is None
    with saver(url, tmp_path / "other", server) as loading:
        state = blank(1, 1000)
        assert equal(state, tensors(loading.load({"x": state}).step, 1, 1000))


def test_gc_of_a_url_on_the_command_line(
    server: S3Server, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with saver(url, tmp_path, server) as saving:
        for step in (10, 15, 20, 25, 30):
            saving.save(step, {"x": tensors(step, 1, 1000)})
            saving.wait(level="remote")
    fs, place = server.fs(), url.removeprefix("s3://")
    fs.pipe_file(f"{place}/step-000000000040/shard-00000-of-00001.safetensors", b"half")  # no manifest
    fs.pipe_file(f"{place}/mine/notes.txt", b"x")
    key = f"{place}/step-000000000050/shard-00000-of-00001.safetensors".partition("/")[2]
    fs.call_s3("create_multipart_upload", Bucket=BUCKET, Key=key)
    words = ["ckpt", "gc", url, "--keep", "2", "--keep-every", "20", "--json"]
    for name, value in server.straight.items():
        words += ["--option", f"{name}={value}"]
    fs.pipe_file(f"{place}/.owner.json", b'{"run":"x","host":"h","pid":1}')
    assert main(words) == 1 and "belongs to a run" in capsys.readouterr().err
    assert main([*words, "--force"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"removed": [10, 15], "kept": [20, 25, 30], "leftovers": [40]}
    left = names(server, url)
    assert "mine/notes.txt" in left and not any("000040" in name for name in left)
    assert not fs.call_s3("list_multipart_uploads", Bucket=BUCKET, Prefix=key).get("Uploads")
    fs.rm_file(f"{place}/.owner.json")
    with saver(url, tmp_path / "other", server) as loading:
        state = blank(1, 1000)
        assert loading.load({"x": state}).step == 30 and equal(state, tensors(30, 1, 1000))


@pytest.mark.nightly
def test_a_store_that_lost_everything_gets_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.5)
    with (
        S3Server() as server,
        saver(f"s3://{BUCKET}/lost", tmp_path, server, remote_bandwidth=20 * MIB) as saving,
    ):
        saving.save(1, {"x": tensors(1, 4, 2 * MIB)})
        saving.wait()
        time.sleep(0.9)
        server.shut_door()
        server.kill()
        time.sleep(0.5)
        server.start()
        server.open_door()
        saving.wait(40, level="remote")
        assert saving.verify(1, level="remote").sound and saving.stats.upload_retries > 0


@pytest.mark.nightly
def test_two_runs_on_one_url(
    server: S3Server, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 2.0)
    first = saver(url, tmp_path / "a", server)
    first.save(1, {"x": tensors(1)})
    first.wait(level="remote")
    second = saver(url, tmp_path / "b", server)
    second.save(2, {"x": tensors(2)})
    with pytest.raises(BusyError, match="give each run its own URL"):
        second.wait(20, level="remote")
    time.sleep(3)  # the first one lives, and says so
    first.save(3, {"x": tensors(3)})
    first.wait(level="remote")
    assert first.steps(level="remote") == [1, 3]
    first.close()
    second.wait(20, level="remote")  # its turn
    assert second.steps(level="remote") == [1, 2, 3]
    second.close()


def test_an_upload_goes_on_where_the_last_process_was_killed(
    server: S3Server, url: str, tmp_path: Path
) -> None:
    """Eight parts; the first process is one that closes in the middle, the second sends the rest alone."""
    first = pccl.Checkpointer(
        url, local=tmp_path, remote_options=server.options, timeout_s=3.0, remote_bandwidth=16 * MIB
    )
    first.save(1, {"x": tensors(1, 4, 4 * MIB)})
    with pytest.raises(CheckpointError, match="the next Checkpointer"):
        first.close()
    sent = server.sent
    with saver(url, tmp_path, server) as second:
        second.wait(level="remote")
        assert second.stats.resumed_bytes >= 24 * MIB
        assert (
            second.stats.uploaded_bytes + second.stats.resumed_bytes
            == second.stats.fetched_bytes + 64 * MIB + 4096
        )
        assert server.sent - sent < 64 * MIB - second.stats.resumed_bytes + MIB
        assert second.verify(1, level="remote").sound


def test_urls_and_settings(tmp_path: Path, server: S3Server) -> None:
    with pytest.raises(UsageError, match="local="):
        pccl.Checkpointer("s3://bucket/run7")
    with pytest.raises(UsageError, match="URL first"):
        pccl.Checkpointer(tmp_path, local=tmp_path)
    with pytest.raises(UsageError, match="URL with a place"):
        pccl.Checkpointer("s3://", local=tmp_path)
    with pytest.raises(UsageError, match="remote 'nosuch://x'"):
        pccl.Checkpointer("nosuch://x", local=tmp_path)
    for wrong in ({"remote_every": 0}, {"remote_keep": 0}, {"remote_bandwidth": -1}, {"compression": "gzip"}):
        with pytest.raises(UsageError):
            pccl.Checkpointer("memory://x", local=tmp_path, **wrong)
    with pccl.Checkpointer(tmp_path / "plain") as plain, pytest.raises(UsageError, match="no remote"):
        plain.wait(level="remote")
    lost = pccl.Checkpointer(
        "s3://no-such-bucket/x", local=tmp_path / "n", remote_options=server.options, timeout_s=1.0
    )
    lost.save(1, {"x": tensors(1, 1, 1000)})
    with pytest.raises(CheckpointError, match="bucket does not exist"):
        lost.wait(30, level="remote")
    with pytest.raises(CheckpointError, match="step 1 is not at s3://no-such-bucket/x after"):
        lost.close()
