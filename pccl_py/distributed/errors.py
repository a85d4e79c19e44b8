"""Errors that are both: what torch.distributed raises, and what this package raises."""

from __future__ import annotations

from typing import Any, cast

from ..errors import PcclError
from .torch_names import dist

_both: dict[type[PcclError], type[Exception]] = {}


def translated(error: PcclError, text: str | None = None) -> Exception:
    """`error` as an exception that `except torch.distributed.DistBackendError`, `except RuntimeError` and
    `except pccl_py.PeerLost` (or whatever it was) catch alike."""
    kind = type(error)
    both = _both.get(kind)
    if both is None:
        bases: tuple[Any, ...] = (dist.DistBackendError, kind)
        both = cast(type[Exception], type(kind.__name__, bases, {"__doc__": kind.__doc__}))
        _both[kind] = both
    made = both(str(error) if text is None else text)
    made.__cause__ = error
    return made
