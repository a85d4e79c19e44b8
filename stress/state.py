"""A shared state whose content follows from its revision, so that every bit of it can be checked."""

from __future__ import annotations

import zlib

import numpy as np

import pccl_py as pccl

from .memory import Array
from .oracles import Kind, Name, contribution

_SHAPES = {"weights": ("float32", 3001), "counts": ("int64", 257), "small": ("uint8", 5)}


class CheckedState:
    """Of one peer. `fresh`: it is new, or was evicted, and may hold an older revision than the others."""

    def __init__(self, seed: int) -> None:
        self.fresh = True
        self.before: int | None = None  # its revision when it last synchronized, as a member
        self._seed = seed
        self._tensors = {name: np.zeros(count, dtype) for name, (dtype, count) in _SHAPES.items()}
        self._state = pccl.SharedState(self._tensors)
        self._write(0)

    def lost(self) -> None:
        """The run went on without this peer. A mixture of two revisions is worth nothing."""
        self.fresh = True
        if self._state.torn:
            self._state.revision = 0
            self._write(0)

    @property
    def revision(self) -> int:
        return self._state.revision

    def advance(self) -> None:
        """The next revision, as after a step of training that all have made."""
        self._state.revision += 1
        self._write(self._state.revision)

    def synchronize(self, comm: pccl.Communicator, *, spoil: bool = False) -> tuple[pccl.SyncInfo, list[str]]:
        """What came of it, and what is wrong with it. `spoil`: afterwards some bits are."""
        before = self._state.revision
        try:
            info = comm.sync_shared_state(self._state)
        except pccl.MismatchError:
            if not self._state.torn:
                raise
            self.lost()  # who had the content died while they gave it: all begin anew
            before = self._state.revision
            info = comm.sync_shared_state(self._state)
        if spoil:
            self._tensors["weights"][7] += 1
        faults = []
        if self._state.revision != info.revision or info.revision < before:
            faults.append(f"revision {before} became {self._state.revision}, {info}")
        self.before = None if self.fresh else before
        self.fresh = False
        for name, tensor in self._tensors.items():
            wrong = np.flatnonzero(tensor != self._content(name, info.revision))
            if wrong.size:
                what = f"shared {name} of revision {info.revision}"
                faults.append(f"{what}: {wrong.size} elements are wrong; {info}")
        return info, faults

    def digest(self) -> int:
        value = self._state.revision
        for tensor in self._tensors.values():
            value = zlib.crc32(tensor.tobytes(), value & 0xFFFFFFFF)
        return value

    def _write(self, revision: int) -> None:
        for name, tensor in self._tensors.items():
            np.copyto(tensor, self._content(name, revision))

    def _content(self, name: str, revision: int) -> Array:
        dtype, count = _SHAPES[name]
        return contribution(self._seed, Name(revision, len(name), 0, 0), Kind(dtype, "sum", False), count)
