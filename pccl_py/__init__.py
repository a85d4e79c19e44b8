"""Collective communication for peers that come and go, and what training over it needs.

    import pccl_py as pccl

    with pccl.Communicator("127.0.0.1:48148") as comm:  # python -m pccl_py master
        comm.wait_for(2)
        info = comm.all_reduce(tensor, "avg")

Importing this package loads neither torch nor an extra.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .arguments import Algorithm, OnLoss, Op, Scope, Strategy
from .config import Config
from .errors import (
    AuthenticationError,
    BusyError,
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
    NoCheckpointError,
    NonFiniteError,
    NoQuorumError,
    NoSnapshotError,
    NotBuilt,
    OperationTimeout,
    OrderError,
    OutcomeUnknown,
    PcclError,
    PeerLost,
    ProtocolError,
    RefusedError,
    SnapshotError,
    SnapshotMemoryError,
    StateError,
    UsageError,
    VersionError,
)
from .quantization import QuantConfig

# Without the compiled core, checkpoints can still be listed, checked and converted.
_has_core = find_spec(f"{__name__}._core") is not None
if TYPE_CHECKING or _has_core:
    from .communicator import Communicator
    from .error_feedback import ErrorFeedback
    from .peer_info import LinkInfo, PeerInfo
    from .shared import empty, share, zeros
    from .shared_state import SharedState, SyncInfo
    from .topology import TopologyReport
    from .work import OpInfo, Work

if TYPE_CHECKING:
    import pccl_py.erasure as erasure  # noqa: F401
    import pccl_py.optim as optim  # noqa: F401 (imported by __getattr__)
    import pccl_py.recovery as recovery  # noqa: F401

    from .checkpoint.checkpointer import Checkpointer as Checkpointer
    from .erasure import ReedSolomon as ReedSolomon
    from .erasure import choose_code as choose_code
    from .erasure import survival_probability as survival_probability
    from .master import Dashboard, EtcdStore, Master
    from .snapshot.snapshots import Snapshots as Snapshots
    from .state.protect import protect as protect
    from .state.resume import resume as resume
    from .state.train_state import TrainState as TrainState

# Without what needs torch: `from pccl_py import *` would load it.
__all__ = [
    "Algorithm",
    "AuthenticationError",
    "BusyError",
    "Cancelled",
    "CheckpointError",
    "ClosedError",
    "CollectiveError",
    "Communicator",
    "Config",
    "ConnectError",
    "DamagedError",
    "ErrorFeedback",
    "Dashboard",
    "EtcdStore",
    "Evicted",
    "InternalError",
    "IslandLost",
    "LinkInfo",
    "Master",
    "MasterLost",
    "MismatchError",
    "NoCheckpointError",
    "NoQuorumError",
    "NoSnapshotError",
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
    "SnapshotError",
    "SnapshotMemoryError",
    "StateError",
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


# Where torch comes later, it asks for the backend itself: see torch_backend.py.
if _has_core and "torch.distributed" in sys.modules:
    from .torch_backend import register

    register()
    del register


_FROM_ROOMS = {
    "Checkpointer": ".checkpoint.checkpointer",
    "Dashboard": ".master",  # its web server is a fifth of what a peer that starts would import
    "EtcdStore": ".master",
    "Master": ".master",
    "Snapshots": ".snapshot.snapshots",
    "ReedSolomon": ".erasure",
    "TrainState": ".state.train_state",
    "choose_code": ".erasure",
    "protect": ".state.protect",
    "resume": ".state.resume",
    "survival_probability": ".erasure",
}


def __getattr__(name: str) -> Any:
    """Parts that need torch, or much else, are imported by whoever names them first."""
    from importlib import import_module

    if name in ("distributed", "erasure", "master", "observe", "optim", "parallel", "recovery"):
        return import_module(f".{name}", __name__)
    if name in _FROM_ROOMS and (_has_core or name not in __all__):
        return getattr(import_module(_FROM_ROOMS[name], __name__), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("pccl-py")
    if name in __all__:
        raise ImportError(f"{name} needs the compiled core, which is not here: pip install pccl-py")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
