"""torch.distributed, whose own annotations do not say all that it has: untyped here, in one place."""

from __future__ import annotations

from typing import Any

import torch.distributed
from torch._C._distributed_c10d import (
    ErrorType,
    FileStore,
    HashStore,
    PrefixStore,
    Store,
    TCPStore,
)

dist: Any = torch.distributed
ProcessGroup: Any = torch.distributed.ProcessGroup
Work: Any = torch.distributed.Work

__all__ = [
    "ErrorType",
    "FileStore",
    "HashStore",
    "PrefixStore",
    "ProcessGroup",
    "Store",
    "TCPStore",
    "Work",
    "dist",
]
