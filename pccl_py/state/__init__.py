"""The state of a training as named tensors and plain values: `TrainState`, and how it is taken apart and put
together. Imports torch."""

from __future__ import annotations

from .train_state import TrainState

__all__ = ["TrainState"]
