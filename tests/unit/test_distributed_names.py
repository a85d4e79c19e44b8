"""pccl_py.distributed has torch.distributed's names and parameters, and nothing is loaded too early."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

torch_dist = pytest.importorskip("torch.distributed")

import torch  # noqa: E402

import pccl_py.distributed as our_dist  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]

# What this backend has no use for: options of torch's own backends, and its registry of them.
NOT_HERE = {
    "AllToAllOptions",
    "AllreduceCoalescedOptions",
    "AllreduceOptions",
    "Backend",
    "BackendConfig",
    "BarrierOptions",
    "BroadcastOptions",
    "GatherOptions",
    "GroupName",
    "ProcessGroupGloo",
    "ReduceOptions",
    "ReduceScatterOptions",
    "ScatterOptions",
    "default_pg_timeout",
    "get_backend_config",
    "record_comm",
    "reduce_op",
    "shrink_group",  # a death shrinks groups here, by itself
    "supports_complex",
}


def test_every_name_of_torch_is_here() -> None:
    from torch.distributed import distributed_c10d

    assert set(distributed_c10d.__all__) - set(our_dist.__all__) == NOT_HERE


def test_parameters_are_those_of_torch() -> None:
    for name in our_dist.__all__:
        ours, theirs = getattr(our_dist, name), getattr(torch_dist, name, None)
        if theirs is None or ours is theirs or inspect.isclass(ours) or not callable(ours):
            continue
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name


def test_without_a_group_calls_say_so() -> None:
    assert not our_dist.is_initialized() and our_dist.group.WORLD is None
    with pytest.raises(RuntimeError, match="init_process_group"):
        our_dist.all_reduce(None)
    with pytest.raises(ValueError, match="'carrier pigeon'.*'pccl'"):
        our_dist.init_process_group("carrier pigeon")
    assert our_dist.get_pg_count() == 0


def test_a_script_that_names_torchs_backend_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As one does that picks it by what there is."""
    named = "nccl" if our_dist.is_nccl_available() else "gloo"
    our_dist.init_process_group(named, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert f"{named!r}: pccl_py.distributed has one backend" in caplog.text
        assert our_dist.get_backend() == our_dist.get_default_backend_for_device("cpu") == "pccl"
        assert our_dist.get_pg_count() == 1
        found = torch.arange(3.0)
        our_dist.all_reduce(found)
        assert found.tolist() == [0.0, 1.0, 2.0] and not torch_dist.is_initialized()
    finally:
        our_dist.destroy_process_group()


def test_the_backend_is_known_once_both_are_imported() -> None:
    """In either order, without the parts that only a group needs."""
    for first, second in (("torch", "pccl_py"), ("pccl_py", "torch")):
        source = f"""
import sys, {first}, {second}
from pccl_py.torch_backend import register
register()  # what torch does at its end, where the package is installed
import torch.distributed as dist
assert "pccl" in dist.Backend.backend_list
assert "pccl_py.distributed" not in sys.modules
"""
        subprocess.run([sys.executable, "-c", source], check=True, timeout=60)


def test_versions_of_torch() -> None:
    """The range is the one of the extra "torch": an older one is refused, a newer one warned of."""
    import tomllib

    from pccl_py.distributed.needed_torch import FIRST, LAST, check_version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (major, minor), (_, newest) = FIRST, LAST
    assert project["optional-dependencies"]["torch"] == [f"torch>={major}.{minor},<{major}.{newest + 1}"]
    for version in (f"{major}.{minor}.0+cpu", f"{major}.{newest}.9", f"{major}.{newest}.0a0+git1234"):
        check_version(version)
    with pytest.raises(ImportError, match=r"need torch 2.13 to 2.15, this is 2.9.1: pip install"):
        check_version("2.9.1")
    with pytest.warns(UserWarning, match=r"tested with torch 2.13 to 2.15, this is 2.16.0\+cu130"):
        check_version("2.16.0+cu130")


def test_an_old_torch_is_refused_at_import() -> None:
    code = "import torch; torch.__version__ = '2.12.1'; import pccl_py.distributed"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: pccl_py.distributed and the backend 'pccl' need torch 2.13"), last
