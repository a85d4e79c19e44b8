"""The bytes of any tensor on the host: where it is dense host memory its own, otherwise a copy of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from .errors import UsageError
from .tensors import DTYPE_CODES, Tensor, check_torch, describe, is_torch, numpy_code, torch_code


class HostMemory(ABC):
    """One tensor of a shared state, as it is now. `address` and `bytes` stay as they are while this lives.

    layout: dtype and shape as text.    code, count: elements as the core numbers dtypes; a dtype that it does
    not know (bool, complex, float8 ...) travels as uint8.    copied: the tensor is no dense host memory.
    address: 0 until load(), where the tensor is copied.
    """

    layout: str
    code: int
    count: int
    address: int
    bytes: int
    copied: bool

    @abstractmethod
    def load(self) -> None:
        """Tensor to copy, where there is one."""

    @abstractmethod
    def write_back(self) -> None:
        """Copy to tensor, where there is one."""


def host_memory(tensor: Tensor, name: str) -> HostMemory:
    """Raises UsageError, naming `name`, for what has no bytes that could be written."""
    if isinstance(tensor, np.ndarray):
        return _NumpyMemory(tensor, name)
    if is_torch(tensor):
        return _TorchMemory(tensor, name)
    raise UsageError(f"{name} is a {type(tensor).__qualname__}; pass a numpy array or a torch tensor")


class _NumpyMemory(HostMemory):
    def __init__(self, array: np.ndarray[Any, Any], name: str) -> None:
        if array.dtype.hasobject or array.dtype.itemsize == 0:
            raise UsageError(f"{name} has dtype {array.dtype}, which has no plain bytes")
        if not array.flags.writeable:
            raise UsageError(f"{name} {describe(array)} is read-only, but a state may have to be replaced")
        self._array = array
        self.copied = not array.flags.c_contiguous
        self.layout = describe(array)
        self.bytes = array.nbytes
        self._host = array
        self.address = 0 if self.copied else int(array.__array_interface__["data"][0])
        code = numpy_code(array.dtype)
        self.code, self.count = (DTYPE_CODES["uint8"], self.bytes) if code is None else (code, array.size)

    def load(self) -> None:
        if self.copied:
            self._host = self._array.copy(order="C")
            self.address = int(self._host.__array_interface__["data"][0])

    def write_back(self) -> None:
        if self.copied:
            np.copyto(self._array, self._host)


class _TorchMemory(HostMemory):
    def __init__(self, tensor: Any, name: str) -> None:
        check_torch(tensor, name)
        self._tensor = tensor = tensor.detach()
        plain = tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
        self.copied = tensor.device.type != "cpu" or not plain
        self.layout = describe(tensor)
        self.bytes = tensor.numel() * tensor.element_size()
        self._host = tensor
        self.address = 0 if self.copied else int(tensor.data_ptr())
        code = torch_code(tensor.dtype)
        self.code, self.count = (DTYPE_CODES["uint8"], self.bytes) if code is None else (code, tensor.numel())

    def load(self) -> None:
        if not self.copied:
            return
        import torch  # imported already: the tensor exists

        tensor = self._tensor
        pinned = bool(tensor.is_cuda)  # a device copies to and from pinned memory at full speed
        self._host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=pinned)
        self._host.copy_(tensor)
        self.address = int(self._host.data_ptr())

    def write_back(self) -> None:
        if self.copied:
            self._tensor.copy_(self._host)
