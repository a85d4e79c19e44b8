"""How tensors travel in a measurement: `--transport auto|tcp|shm|cma`, passed on to the Communicator."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import numpy as np

from ..communicator import Communicator
from ..errors import NotBuilt
from .tensors import Array, stored_type

TRANSPORTS = ("auto", "tcp", "shm", "cma")


def check(transport: str) -> None:
    """Raises NotBuilt where this version's Communicator has no choice: it knows TCP alone."""
    if transport in ("auto", "tcp") or _is_chosen():
        return
    raise NotBuilt(f"--transport {transport}: this version has TCP alone; pass --transport tcp")


def arguments(transport: str) -> dict[str, Any]:
    """Of the Communicator."""
    return {"transport": transport} if transport != "auto" and _is_chosen() else {}


def used(asked: str, links: list[Any]) -> str:
    """What the links say that they use; several names where they differ."""
    named = {str(link.transport) for link in links if hasattr(link, "transport")}
    return "/".join(sorted(named)) or ("tcp" if asked == "auto" else asked)


def empty(transport: str, count: int, dtype: str = "float32") -> Array:
    """Memory of a tensor, as that transport wants it; bfloat16 as its 16 bits."""
    if transport != "shm":
        return np.empty(count, stored_type(dtype))
    allocate = import_module("pccl_py").empty
    return np.asarray(allocate(count, stored_type(dtype).name))


def _is_chosen() -> bool:
    return "transport" in inspect.signature(Communicator.__init__).parameters
