"""The project's own rules, by the checks in .ci/checks that are quick, and what a user's import loads."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}", pytrace=False)
    return done.stdout


@pytest.mark.parametrize("check", ["arrows", "pyi", "baseline"])
def test_check(check: str) -> None:
    run(sys.executable, f".ci/checks/{check}")


def load_check(name: str) -> Any:
    """As a module, without a file of bytecode beside it."""
    path = ROOT / ".ci" / "checks" / name
    module = ModuleType(name)
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    return module


def test_stub_check_uses_the_environment_or_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyi = load_check("pyi")
    monkeypatch.setattr(pyi, "ROOT", tmp_path)
    assert pyi.python() == sys.executable
    own = tmp_path / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\necho "$0: No module named pybind11_stubgen"; exit 1\n')
    own.chmod(0o755)
    assert pyi.python() == str(own)
    with pytest.raises(SystemExit, match=r"pip install -e '.\[dev\]'"):
        pyi.main([])


def test_aarch64_check_says_that_it_checks_nothing(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path)}  # no compiler, no emulator, no apt-get
    done = subprocess.run(
        [sys.executable, ".ci/checks/neon"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 77
    assert "NOT CHECKED: aarch64 needs" in done.stdout and "apt-get install" in done.stdout


def test_aarch64_check_sees_loops_without_vectors() -> None:
    neon = load_check("neon")
    vectors = [
        ("10", "ldr", "q0, [x1, x0]"),
        ("14", "fadd", "v0.4s, v0.4s, v1.4s"),
        ("18", "str", "q0, [x2, x0]"),
        ("1c", "b.ne", "10 <sum+0x10>  // b.any"),
    ]
    scalar = [("20", "ldr", "s0, [x1]"), ("24", "fadd", "s0, s0, s1"), ("28", "cbnz", "x3, 20 <sum+0x20>")]
    straight = [("30", "fadd", "v0.4s, v0.4s, v1.4s"), ("34", "ret", "")]
    assert neon.share_of_vectors(vectors) == 0.75
    assert neon.share_of_vectors(scalar) == neon.share_of_vectors(straight) == 0
    assert neon.share_of_vectors(scalar + vectors) == 0.75


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="git says what belongs to the project")
def test_top_level() -> None:
    run(sys.executable, ".ci/checks/toplevel")


@pytest.mark.parametrize("check", sorted(path.name for path in (ROOT / ".ci" / "checks").iterdir()))
def test_checks_can_be_run_by_name(check: str) -> None:
    path = ROOT / ".ci" / "checks" / check
    assert os.access(path, os.X_OK)
    assert f"usage: {check}" in path.read_text()


def test_import_loads_no_extra() -> None:
    source = "import sys; from pccl_py import *; import pccl_py; "
    source += "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = set(run(sys.executable, "-c", source).split())
    assert "pccl_py" in loaded
    assert not loaded & {"torch", "rich", "matplotlib", "pytest", "hypothesis"}


def test_installed_version_is_the_declared_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert metadata.version("pccl-py") == project["version"]
