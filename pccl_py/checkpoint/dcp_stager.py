"""Copies a state for dcp.async_save into memory that is kept: the second save pays no first touch, and one
that comes while the first is on its way gets memory of its own."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import staging


class AsyncStager(staging.AsyncStager):
    """`dcp.async_save(state, async_stager=AsyncStager(), ...)`; keep it for all saves, for its memory's sake.

    A set of copies is used again once nobody holds the state that had it, so overlapping saves do not mix.
    """

    _synchronize_after_execute = False

    def __init__(self) -> None:
        self._sets: list[_Copies] = []

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """The same tree with copies of this moment for all tensors, on the host."""
        free = next((copies for copies in self._sets if copies.free), None)
        if free is None:
            self._sets.append(free := _Copies())
        staged: dict[str, Any] = free.of(state_dict)
        return staged

    def synchronize_staging(self) -> None:
        pass

    def close(self) -> None:
        self._sets.clear()


class _Copies:
    """Host tensors by their place in the tree; lent out as new views, which say by living that they are
    used."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Tensor] = {}
        self._lent: list[weakref.ref[Tensor]] = []

    @property
    def free(self) -> bool:
        return not any(ref() is not None for ref in self._lent)

    @torch.no_grad()
    def of(self, tree: Any) -> Any:
        self._lent = []
        used: dict[tuple[Any, ...], Tensor] = {}
        copied = self._copied(tree, (), used)
        self._kept = used
        return copied

    def _copied(self, value: Any, path: tuple[Any, ...], used: dict[tuple[Any, ...], Tensor]) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value, path, used)
        if isinstance(value, dict):
            return {key: self._copied(item, (*path, key), used) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)(self._copied(item, (*path, i), used) for i, item in enumerate(value))
        return value

    def _tensor(self, value: Any, path: tuple[Any, ...], used: dict[tuple[Any, ...], Tensor]) -> Tensor:
        local = value._local_tensor if hasattr(value, "_local_tensor") else value
        kept = self._kept.get(path)
        if kept is None or kept.shape != local.shape or kept.dtype != local.dtype:
            kept = torch.empty(local.shape, dtype=local.dtype, device="cpu")
        kept.copy_(local)
        used[path] = kept
        lent = kept.view(kept.shape)
        self._lent.append(weakref.ref(lent))
        if local is value:
            return lent
        from torch.distributed.tensor import DTensor

        mesh, placements = value.device_mesh, value.placements
        return DTensor.from_local(
            lent, mesh, placements, run_check=False, shape=value.shape, stride=value.stride()
        )
