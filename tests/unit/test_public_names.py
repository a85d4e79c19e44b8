"""Every public name says what it is: its shapes and units, what it raises, and where it comes from."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

PACKAGES = ("", ".errors", ".erasure", ".checkpoint", ".snapshot", ".staging", ".observe", ".recovery")
WITH_TORCH = (".distributed", ".optim", ".parallel", ".state")
TORCHS_OWN = {"ProcessGroup"}  # its methods are those of torch's class

packages = pytest.mark.parametrize(
    "package",
    [
        *PACKAGES,
        *(
            pytest.param(name, marks=pytest.mark.skipif(find_spec("torch") is None, reason="needs torch"))
            for name in WITH_TORCH
        ),
    ],
)


def public(package: str) -> dict[str, Any]:
    module = import_module(f"pccl_py{package}")
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    found = {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in found.items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith("pccl_py")
    }


def undocumented(name: str, value: Any) -> list[str]:
    missing = [] if value.__doc__ else [name]
    if not inspect.isclass(value) or name in TORCHS_OWN or issubclass(value, BaseException):
        return missing
    for own, member in vars(value).items():
        plain = (
            member.fget
            if isinstance(member, property)
            else inspect.unwrap(getattr(member, "__func__", member))
        )
        if not own.startswith("_") and inspect.isfunction(plain) and not plain.__doc__:
            missing.append(f"{name}.{own}")
    return missing


@packages
def test_public_names_say_what_they_are(package: str) -> None:
    assert [gap for name, value in public(package).items() for gap in undocumented(name, value)] == []
