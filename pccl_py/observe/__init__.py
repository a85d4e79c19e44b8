"""What a run does now, and did lately: diagnosis, dumps of recorded events, and timelines made of them.

    comm.diagnose()                    # operations in flight, and whom each waits for
    comm.dump("here.pccltrace")        # this peer's last events
    pccl_py.observe.dump_on_signal()   # kill -USR1 PID: all communicators of the process

`python -m pccl_py trace DUMPS... -o out.json` merges dumps of many peers. Never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnosis import Diagnosis, Hindrance, LinkNow, OperationNow
    from .dump import dump_all, dump_on_signal
    from .timeline import merge
    from .trace_format import Event, Trace, TraceError, decode, read

__all__ = [
    "Diagnosis",
    "Event",
    "Hindrance",
    "LinkNow",
    "OperationNow",
    "Trace",
    "TraceError",
    "decode",
    "dump_all",
    "dump_on_signal",
    "merge",
    "read",
]

_FROM = {
    "Diagnosis": "diagnosis",
    "Hindrance": "diagnosis",
    "LinkNow": "diagnosis",
    "OperationNow": "diagnosis",
    "dump_all": "dump",
    "dump_on_signal": "dump",
    "merge": "timeline",
    "Event": "trace_format",
    "Trace": "trace_format",
    "TraceError": "trace_format",
    "decode": "trace_format",
    "read": "trace_format",
}


def __getattr__(name: str) -> Any:
    """Whoever names a part loads it: a peer or a keeper that starts needs none of them."""
    if name in _FROM:
        return getattr(import_module(f".{_FROM[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
