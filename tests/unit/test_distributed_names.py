"""pccl_py.distributed has torch.distributed's names and parameters, and nothing is loaded too early."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

torch_dist = pytest.importorskip("torch.distributed")

import pccl_py.distributed as our_dist  # noqa: E402

# What this backend has no use for: options of torch's own backends, and its registry of them.
NOT_HERE = {
    "AllToAllOptions",
    "AllreduceCoalescedOptions",
    "AllreduceOptions",
    "Backend",
    "BackendConfig",
    "BarrierOptions",
    "BroadcastOptions",
    "DebugLevel",
    "GatherOptions",
    "GroupName",
    "ProcessGroupGloo",
    "ReduceOptions",
    "ReduceScatterOptions",
    "ScatterOptions",
    "default_pg_timeout",
    "get_backend_config",
    "get_debug_level",
    "get_default_backend_for_device",
    "get_pg_count",
    "is_backend_available",
    "is_gloo_available",
    "is_mpi_available",
    "is_nccl_available",
    "is_ucc_available",
    "is_xccl_available",
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
        if theirs is None or inspect.isclass(ours) or not callable(ours):
            continue
        assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters), name


def test_without_a_group_calls_say_so() -> None:
    assert not our_dist.is_initialized() and our_dist.group.WORLD is None
    with pytest.raises(RuntimeError, match="init_process_group"):
        our_dist.all_reduce(None)
    with pytest.raises(ValueError, match="'pccl'"):
        our_dist.init_process_group("gloo")


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
