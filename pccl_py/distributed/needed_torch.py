"""Which torch this package works with: looked at before anything of it is used."""

from __future__ import annotations

import warnings

import torch

FIRST, LAST = (2, 13), (2, 15)  # as pyproject.toml says: later ones may work, earlier ones do not


def check_version(version: str) -> None:
    """Raises ImportError for a torch that lacks what is used, and warns of one that nobody has tested."""
    known = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    first, last = (".".join(map(str, end)) for end in (FIRST, LAST))
    if known < FIRST:
        raise ImportError(
            f"pccl_py.distributed and the backend 'pccl' need torch {first} to {last}, this is {version}: "
            "pip install 'pccl-py[torch]'"
        )
    if known > LAST:
        warnings.warn(
            f"pccl_py.distributed and the backend 'pccl' are tested with torch {first} to {last}, this is "
            f"{version}",
            stacklevel=2,
        )


check_version(torch.__version__)
