"""torch.compile looks at every Python function that runs under it, also at those that torch calls from C++ in
the middle of a compiled module: it shall leave this package's alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any


def leave_alone(package: str) -> None:
    """All functions of the package's modules that are loaded now."""
    try:
        from torch._C._dynamo.eval_frame import _FrameAction, _FrameExecStrategy, set_code_exec_strategy
    except ImportError:  # a torch that does it otherwise: slower under torch.compile, or refused there
        return
    skip = _FrameExecStrategy(_FrameAction.SKIP, _FrameAction.SKIP)  # it, and whatever it calls
    for name, module in list(sys.modules.items()):
        if name == package or name.startswith(f"{package}."):
            for code in _codes_of(module):
                set_code_exec_strategy(code, skip)


def _codes_of(module: ModuleType) -> Iterator[CodeType]:
    for value in list(vars(module).values()):
        yield from _codes(value)
        if isinstance(value, type) and value.__module__ == module.__name__:
            for member in vars(value).values():
                yield from _codes(member)


def _codes(value: Any) -> Iterator[CodeType]:
    for function in (value, getattr(value, "fget", None), getattr(value, "__func__", None)):
        if isinstance(function, FunctionType):
            yield from _nested(function.__code__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)
