"""`python -m pccl_py ckpt`: what it prints, its status, and that it needs no compiled core."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import pccl_py
from pccl_py.checkpoint import folder, manifest_body
from pccl_py.checkpoint import format as page
from pccl_py.checkpoint.boxes import Box
from pccl_py.checkpoint.plain_writer import Source, source_of_array, write_step
from pccl_py.cli import main
from pccl_py.values import limits, tagged
from pccl_py.values.tagged_decode import _FROM_PARTS, _FROM_TEXT

W = np.arange(600, dtype=np.float32).reshape(20, 30)
SHARD = "shard-00000-of-00001.safetensors"


def save(root: Path, step: int, w: np.ndarray[Any, Any] = W, lr: object = 0.1, *, cut: bool = False) -> Path:
    sources = [source_of_array("model/w", w)]
    if cut:
        sources = [
            Source("model/w", "F32", w.shape, lambda b=box: w[b.slices()].tobytes(), box)  # type: ignore[misc]
            for box in (Box((0, 0), (7, 30)), Box((7, 0), (13, 30)))
        ]
    objects = {"model": {"w": {"$tensor": "model/w"}}, "inner": tagged.encode({"lr": lr, "state": {0: 1}})}
    write_step(root, step, sources, objects=objects, time=1e9)
    return folder.step_path(root, step)


def out(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> str:
    assert main(["ckpt", *map(str, words)]) == status
    return capsys.readouterr().out


def test_ls_shows_steps_and_what_is_wrong_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert out(capsys, "ls", tmp_path) == f"no step in {tmp_path}\n"
    for step in (1, 2, 3):
        save(tmp_path, step)
    (folder.step_path(tmp_path, 2) / SHARD).unlink()
    (folder.step_path(tmp_path, 3) / "manifest.json").write_bytes(b"")
    folder.begin(tmp_path, 4)
    lines = out(capsys, "ls", tmp_path).splitlines()
    assert re.fullmatch(r" +1  2001-09-09 01:46:40 +1 +1 +6.34 KiB  complete", lines[1])
    assert f"1 shard files are not here, e.g. {SHARD}" in lines[2] and "damaged: " in lines[3]
    assert lines[-1].startswith("1 leftovers")
    found = [json.loads(line) for line in out(capsys, "ls", tmp_path, "--json").splitlines()]
    assert [(step["step"], step["complete"]) for step in found] == [(1, True), (2, False), (3, False)]
    assert found[0]["tensors"] == 1 and found[1]["missing"] == [SHARD]


def test_inspect_shows_tensors_and_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2, cut=True)
    text = out(capsys, "inspect", tmp_path)
    assert re.search(r"^model/w +F32 +20x30 +2  2.34 KiB$", text, re.M) and "step 2 of 2001" in text
    assert text == out(capsys, "inspect", path) == out(capsys, "inspect", tmp_path, "--step", 2)
    about = json.loads(out(capsys, "inspect", tmp_path, "--step", 1, "--json"))
    assert about["step"] == 1 and about["tensors"]["model/w"]["shape"] == [20, 30]
    (tmp_path / "link").symlink_to(path)
    assert "step 2 of" in out(capsys, "inspect", tmp_path / "link")


def test_inspect_reads_a_foreign_safetensors_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a.b": W, "\x1b[2Jc": np.ones(3, np.int8)}, file, {"made": "elsewhere"})
    text = out(capsys, "inspect", file)
    assert (
        re.search(r"^a.b +F32 +20x30 +2.34 KiB$", text, re.M) and "\x1b" not in text and "elsewhere" in text
    )
    about = json.loads(out(capsys, "inspect", file, "--json"))
    assert about["tensors"]["a.b"]["bytes"] == W.nbytes
    file.write_bytes(b"no such thing")
    assert main(["ckpt", "inspect", str(file)]) == 1


def test_what_is_not_there_or_of_another_kind_is_said_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as file:
        file.writestr("a/data.pkl", b"x")
    assert main(["ckpt", "inspect", str(tmp_path / "a.pt")]) == 1
    assert "as torch.save writes: make a step of it by import" in capsys.readouterr().err
    for action in ("inspect", "verify"):
        assert main(["ckpt", action, str(tmp_path / "nothing"), "--json"]) == 1
        assert "nothing does not exist" in capsys.readouterr().err


def test_verify_names_damage_and_its_status_is_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    assert "step 1: sound" in out(capsys, "verify", tmp_path)
    data = bytearray((path / SHARD).read_bytes())
    data[5000] ^= 4
    (path / SHARD).write_bytes(data)
    text = out(capsys, "verify", tmp_path, status=1)
    assert "step 1: sound" in text and f"step 2: DAMAGED\n  {SHARD}, block 0 (bytes 0 to" in text
    assert "'model/w'" in text
    reports = [json.loads(line) for line in out(capsys, "verify", tmp_path, "--json", status=1).splitlines()]
    assert [report["sound"] for report in reports] == [True, False]
    assert reports[1]["damages"][0]["tensors"] == ["model/w"]
    assert out(capsys, "verify", tmp_path, "--step", 1) and out(capsys, "verify", path, status=1)
    assert main(["ckpt", "verify", str(tmp_path / "nothing")]) == 1


def test_diff_compares_values_however_they_are_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = save(tmp_path, 1)
    assert "1 tensors are the same; 0 differences" in out(capsys, "diff", a, save(tmp_path, 2))
    assert "0 differences" in out(capsys, "diff", a, save(tmp_path, 3, cut=True))
    assert "~ tensor 'model/w': other values" in out(capsys, "diff", a, save(tmp_path, 4, W + 1), status=1)
    assert "other values" in out(capsys, "diff", a, save(tmp_path, 5, W + 1, cut=True), status=1)
    assert "other shape, F32[20, 30] -> F32[30, 20]" in out(
        capsys, "diff", a, save(tmp_path, 6, W.T.copy()), status=1
    )
    assert "other dtype" in out(capsys, "diff", a, save(tmp_path, 7, W.astype(np.float64)), status=1)
    found = json.loads(out(capsys, "diff", a, save(tmp_path, 8, lr=1), "--json", status=1))
    assert found["changes"] == [
        {"kind": "object", "name": "objects/inner/lr", "what": "values", "before": "0.1", "after": "1"}
    ]
    assert "inner/lr': other values, 1 -> true" in out(
        capsys, "diff", folder.step_path(tmp_path, 8), save(tmp_path, 9, lr=True), status=1
    )


def test_long_commands_say_on_a_terminal_how_far_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors.numpy.save_file({"w": W}, tmp_path / "a.safetensors")
    root, again, target = tmp_path / "root", tmp_path / "again", tmp_path / "b.safetensors"
    for words in (
        ("import", tmp_path / "a.safetensors", root, "--step", 3),
        ("reshard", root, again, "--shards", 2),
        ("diff", root, again),
        ("export", again, target, "--to", "safetensors"),
        ("verify", again),
    ):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        assert main(["ckpt", *map(str, words)]) == 0
        shown = capsys.readouterr().err
        assert shown.startswith("\r") and shown.endswith(f"[{'#' * 25}] 100 %\n"), (words, shown)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert main(["ckpt", "verify", str(root)]) == 0 and capsys.readouterr().err == ""


def test_format_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert out(capsys, "format") == page.text()
    assert len(page.text().splitlines()) < 100


def test_the_page_names_every_key_tag_and_limit() -> None:
    text = page.text()
    for key in manifest_body.KEYS:
        assert re.search(rf"^    {key}\b", text, re.M), key
    for tag in [*_FROM_PARTS, *_FROM_TEXT, "$tensor"]:
        assert f'{{"{tag}":' in text, tag
    text = " ".join(text.split())
    for limit in (limits.TENSORS_MAX, limits.SHARDS_MAX, limits.NAME_BYTES_MAX, limits.HEADER_BYTES_MAX):
        assert f"{limit:,}" in text
    assert f"{limits.INT_BITS_MAX:,} bits" in text and f"{limits.RANK_MAX} dimensions" in text
    assert f"manifest {limits.MANIFEST_BYTES_MAX >> 20} MiB" in text and limits.STEP_MAX == 10**12 - 1
    assert f"nested {limits.JSON_DEPTH_MAX} deep, a tagged value {limits.TAGGED_DEPTH_MAX}" in text


@pytest.mark.deadline(180)
def test_it_runs_where_the_compiled_core_and_torch_are_absent(tmp_path: Path) -> None:
    """In a copy of the package without the extension, and with torch hidden."""
    package = Path(pccl_py.__file__).parent
    shutil.copytree(package, tmp_path / "pccl_py", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    save(tmp_path / "root", 1)
    safetensors.numpy.save_file({"a": W}, tmp_path / "a.safetensors")

    def ckpt(*words: str, status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pccl_py", "ckpt", *words],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    assert "complete" in ckpt("ls", "root")
    assert "model/w" in ckpt("inspect", "root")
    assert "sound" in ckpt("verify", "root")
    assert "1 tensors" in ckpt("import", "a.safetensors", "root", "--step", "2")
    assert "sound" in ckpt("verify", "root", "--step", "2")
    assert "differences" in ckpt("diff", "root/step-000000000001", "root", status=1)
    assert "safetensors in" in ckpt("export", "root", "b.safetensors", "--to", "safetensors")
    assert "The checkpoint format" in ckpt("format")
    assert "needs torch" in ckpt("export", "root", "b.pt", "--to", "torch", status=2)
    found = safetensors.numpy.load_file(tmp_path / "b.safetensors")
    assert np.array_equal(found["model.a"], W)
    hidden = (  # from an editable install's finder, which knows where the extension is
        "import sys; "
        "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]"
        "; "
        "from pccl_py import Communicator"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "needs the compiled core" in done.stderr
