"""Makes `dist.init_process_group("pccl")` known to torch, without loading what it needs until then.

torch calls `register()` at the end of `import torch` where this package is installed (entry point group
"torch.backends"); `import pccl_py` calls it where torch is there already.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any


def _create(options: Any, pg_options: Any = None) -> Any:
    from .distributed import backend

    return backend.create(options, pg_options)


def _rendezvous(url: str, *args: Any, **options: Any) -> Iterator[Any]:
    from .distributed import backend

    yield from backend.rendezvous(url, *args, **options)


def register() -> None:
    """Once; again does nothing. Nor does it where torch was built without torch.distributed."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or "PCCL" in dist.Backend._plugins:
        return
    dist.Backend.register_backend("pccl", _create, extended_api=True, devices=["cpu", "cuda"])
    dist.register_rendezvous_handler("pccl", _rendezvous)
