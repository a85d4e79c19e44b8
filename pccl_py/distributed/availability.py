"""What torch tells of its backends, and what a script that names one of those gets from this module."""

from __future__ import annotations

import logging
from typing import Any

from .torch_names import dist

logger = logging.getLogger("pccl_py")

DebugLevel: Any = dist.DebugLevel
get_debug_level: Any = dist.get_debug_level
is_backend_available: Any = dist.is_backend_available
is_gloo_available: Any = dist.is_gloo_available
is_mpi_available: Any = dist.is_mpi_available
is_nccl_available: Any = dist.is_nccl_available
is_ucc_available: Any = dist.is_ucc_available
is_xccl_available: Any = dist.is_xccl_available

OURS = "pccl"


def get_default_backend_for_device(device: Any) -> str:
    """Here one backend is for all devices."""
    return OURS


def check_backend(named: str | None) -> None:
    """A script that was written for another of torch's backends runs on this one: a line in the log says so.
    Raises ValueError for a name that torch does not know either."""
    parts = [] if named is None else [part.split(":")[-1].strip().lower() for part in named.split(",")]
    others = sorted({part for part in parts if part != OURS})
    unknown = [part for part in others if part not in dist.Backend.backend_list]
    if unknown:
        raise ValueError(f"backend={named!r}: nobody knows {unknown[0]!r}; this module has {OURS!r}")
    if others:
        logger.warning("backend=%r: pccl_py.distributed has one backend, and takes %r instead", named, OURS)
