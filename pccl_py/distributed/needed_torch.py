"""Which torch this package works with: looked at before anything of it is used."""

from __future__ import annotations

import warnings

import torch

TESTED = (2, 13)  # as pyproject.toml says: later ones may work, earlier ones do not


def check_version(version: str) -> None:
    """Raises ImportError for a torch that lacks what is used, and warns of one that nobody has tested."""
    known = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    wanted = ".".join(map(str, TESTED))
    if known < TESTED:
        raise ImportError(
            f"pccl_py.distributed and the backend 'pccl' need torch {wanted}, this is {version}: "
            "pip install 'pccl-py[torch]'"
        )
    if known > TESTED:
        warnings.warn(
            f"pccl_py.distributed and the backend 'pccl' are tested with torch {wanted}, this is {version}",
            stacklevel=2,
        )


check_version(torch.__version__)
