"""What torch calls at the end of `import torch`, where this package is installed."""

from __future__ import annotations


def register() -> None:
    from . import backend

    backend.register()
