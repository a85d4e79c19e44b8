"""How commands tell that they failed: in words, by their status and, with --json, as an object on stdout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pccl_py import cli
from pccl_py.cli import main


def failed(capsys: pytest.CaptureFixture[str], *words: object, status: int) -> tuple[dict[str, Any], str]:
    """The object, and what is on stderr."""
    try:
        assert main(list(map(str, words))) == status
    except SystemExit as end:
        assert end.code == status
    out, told = capsys.readouterr()
    (line,) = out.splitlines()
    return json.loads(line), told


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "{}/none"),
        ("inspect", "{}/none"),
        ("verify", "{}/none"),
        ("diff", "{}/none", "{}/none"),
        ("gc", "{}/none", "--keep", "1"),
        ("reshard", "{}/none", "{}/other", "--shards", "2"),
        ("import", "{}/none", "{}/other", "--step", "1"),
        ("export", "{}/none", "{}/other", "--to", "safetensors"),
    ],
    ids=lambda words: words[0],
)
def test_every_action_of_ckpt_tells_its_error_as_an_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    words = tuple(word.format(tmp_path) for word in words)
    found, told = failed(capsys, "ckpt", *words, "--json", status=1)
    assert found.keys() == {"error", "kind", "command"}
    assert found["command"] == f"ckpt {words[0]}" and found["kind"] == "NoCheckpointError"
    assert str(tmp_path / "none") in found["error"] and found["error"] in told
    with pytest.raises(json.JSONDecodeError):
        json.loads(told)
    assert main(["ckpt", *words]) == 1
    assert capsys.readouterr().out == ""  # without --json only words


@pytest.mark.parametrize(
    ("words", "command", "said"),
    [
        (("ckpt", "ls"), "ckpt ls", "PATH"),
        (("ckpt", "gc", "x"), "ckpt gc", "--keep"),
        (("bench", "ckpt", "--size", "many"), "bench ckpt", "--size"),
        (("bench", "reshard", "--size", "many"), "bench reshard", "--size"),
        (("bench", "ckpt", "--size", "1G", "--against", "nobody"), "bench ckpt", "nobody"),
        (("doctor", "--peers"), "doctor", "--peers"),
        (("nothing",), "nothing", "invalid choice"),
        (("snapshots", "ls", "--more"), "snapshots", "--more"),
    ],
)
def test_wrong_arguments_are_told_as_an_object(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], command: str, said: str
) -> None:
    found, told = failed(capsys, *words, "--json", status=2)
    assert found["kind"] == "UsageError" and said in found["error"] and said in told
    assert found["command"] == command


def test_what_was_not_expected_is_told_too_and_keeps_its_trace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        add_parser = staticmethod(cli.import_module(".config", cli.__name__).add_parser)

        @staticmethod
        def run(args: object) -> int:
            raise ZeroDivisionError("of ours")

    monkeypatch.setattr(cli, "import_module", lambda name, package: Broken)
    with pytest.raises(ZeroDivisionError):
        main(["config", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found == {"error": "of ours", "kind": "ZeroDivisionError", "command": "config"}


BROKEN = """
import sys, types
from pccl_py import cli
def run(args):
    raise BrokenPipeError("a socket of ours")
command = types.SimpleNamespace(add_parser=lambda commands: commands.add_parser("config"), run=run)
cli.import_module = lambda name, package: command
sys.exit(cli.main(["config"]))
"""


def test_whoever_reads_may_have_enough() -> None:
    """`ckpt diff | head` ended with a trace."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pccl_py", "config"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_pipe_that_breaks_is_a_fault() -> None:
    command = [sys.executable, "-c", BROKEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "BrokenPipeError: a socket of ours" in done.stderr


FULL = """
import resource, sys
from pccl_py.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("to", ["safetensors", "torch", "dcp"])
def test_an_export_that_a_disk_does_not_take_is_an_error_of_ours(tmp_path: Path, to: str) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    torch = pytest.importorskip("torch")
    source, root, target = tmp_path / "a.safetensors", tmp_path / "run", tmp_path / f"out.{to}"
    safetensors.save_file({"a": torch.ones(1 << 20)}, source)
    assert main(["ckpt", "import", str(source), str(root), "--step", "1"]) == 0
    words = ["ckpt", "export", str(root), str(target), "--to", to, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert found["kind"] == "CheckpointError" and f"cannot write {target}: File too large" in found["error"]
    assert {path.name for path in tmp_path.iterdir()} == {"a.safetensors", "run"}
