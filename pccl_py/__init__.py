"""Collective communication for peers that come and go, and what training over it needs.

    import pccl_py as pccl

    with pccl.Communicator("127.0.0.1:48148") as comm:  # python -m pccl_py master
        comm.wait_for(2)
        info = comm.all_reduce(tensor, "avg")

Importing this package loads neither torch nor an extra.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .arguments import Algorithm, OnLoss, Op, Scope, Strategy
from .communicator import Communicator, LinkInfo, PeerInfo
from .config import Config
from .error_feedback import ErrorFeedback
from .errors import (
    AuthenticationError,
    Cancelled,
    CheckpointError,
    ClosedError,
    CollectiveError,
    ConnectError,
    DamagedError,
    Evicted,
    InternalError,
    IslandLost,
    MasterLost,
    MismatchError,
    NonFiniteError,
    NoQuorumError,
    NotBuilt,
    OperationTimeout,
    OrderError,
    OutcomeUnknown,
    PcclError,
    PeerLost,
    ProtocolError,
    RefusedError,
    UsageError,
    VersionError,
)
from .master import Master
from .quantization import QuantConfig
from .shared import empty, share, zeros
from .shared_state import SharedState, SyncInfo
from .topology import TopologyReport
from .work import OpInfo, Work

if TYPE_CHECKING:
    import pccl_py.optim as optim  # noqa: F401 (imported by __getattr__)
    import pccl_py.recovery as recovery  # noqa: F401

__all__ = [
    "Algorithm",
    "AuthenticationError",
    "Cancelled",
    "CheckpointError",
    "ClosedError",
    "CollectiveError",
    "Communicator",
    "Config",
    "ConnectError",
    "DamagedError",
    "ErrorFeedback",
    "Evicted",
    "InternalError",
    "IslandLost",
    "LinkInfo",
    "Master",
    "MasterLost",
    "MismatchError",
    "NoQuorumError",
    "NonFiniteError",
    "NotBuilt",
    "OnLoss",
    "Op",
    "OpInfo",
    "OperationTimeout",
    "OrderError",
    "OutcomeUnknown",
    "PcclError",
    "PeerInfo",
    "PeerLost",
    "ProtocolError",
    "QuantConfig",
    "RefusedError",
    "Scope",
    "SharedState",
    "Strategy",
    "SyncInfo",
    "TopologyReport",
    "UsageError",
    "VersionError",
    "Work",
    "empty",
    "share",
    "zeros",
]


if "torch.distributed" in sys.modules:  # else it asks for it when it comes: see torch_backend.py
    from .torch_backend import register

    register()
    del register


def __getattr__(name: str) -> Any:
    """Parts that need torch are imported by whoever names them first."""
    if name in ("distributed", "optim", "parallel", "recovery"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    if name == "__version__":
        from importlib.metadata import version

        return version("pccl-py")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
