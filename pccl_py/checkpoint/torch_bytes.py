"""Torch tensors as bytes and back. Torch is imported when a function here is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import StateError
from ..values import dtypes, names


def dtype_of(tensor: Any, name: str) -> str:
    """Its dtype's name. Raises StateError for what cannot be saved: other dtypes, sparse, quantized, meta."""
    import torch

    dtype = dtypes.of_torch(tensor.dtype)
    if dtype is None or tensor.layout != torch.strided or tensor.is_meta:
        raise StateError(
            f"{names.shown(name)} is a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}: only "
            "dense tensors of the dtypes that safetensors has can be saved"
        )
    return dtype


def bytes_of(tensor: Any) -> memoryview:
    """Dense, row-major; of a tensor that is that already, its own memory."""
    import torch

    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return memoryview(dense.reshape(-1).view(torch.uint8).numpy()).cast("B")


def tensor_of(dtype: str, shape: Sequence[int], data: bytearray) -> Any:
    """A torch tensor in the memory of `data`."""
    import torch

    known = dtypes.to_torch(dtype)
    return torch.frombuffer(data, dtype=known).reshape(shape) if data else torch.empty(shape, dtype=known)
