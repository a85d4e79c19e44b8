"""From a numpy array or torch tensor to what the core takes, and every check before that.

Neither library is needed: an array of one exists only where it was imported. Nothing here copies; the core
works in the caller's memory, at any alignment (of CUDA tensors: in the copies of cuda_staging.py).
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from .errors import UsageError

# As numbered by csrc/base/dtype.hpp.
DTYPE_CODES = {
    "float32": 1,
    "float64": 2,
    "float16": 3,
    "bfloat16": 4,
    "int8": 5,
    "int16": 6,
    "int32": 7,
    "int64": 8,
    "uint8": 9,
    "uint16": 10,
    "uint32": 11,
    "uint64": 12,
}
FLOATING = frozenset(code for name, code in DTYPE_CODES.items() if "float" in name)
TENSORS_MAX = 1 << 14  # in one operation or shared state: csrc/base/limits.hpp

Tensor = Any  # a numpy array or a torch tensor


class Buffer(NamedTuple):
    """The memory of one tensor: elements of the dtype with `code`, at `address`."""

    address: int
    elements: int
    code: int
    bytes: int


class Operand(NamedTuple):
    """One tensor of an operation as the core takes it. The same address twice: in place."""

    input: int
    output: int
    elements: int
    code: int


def operands(tensors: Tensor | Sequence[Tensor], out: Tensor | Sequence[Tensor] | None) -> list[Operand]:
    """The tensors of one operation, checked; `out` None means in place.

    Raises UsageError for what cannot be reduced. Addresses of CUDA tensors are those on their device.
    """
    if not isinstance(tensors, list | tuple):
        if out is None:
            only = buffer(tensors, "the tensor", written=True)
            return [Operand(only.address, only.address, only.elements, only.code)]
        return _out_of_place([tensors], ["the tensor"], as_list(out, "out"))
    inputs = as_list(tensors, "the tensors")
    names = [f"tensor {index} of the list" for index in range(len(inputs))]
    if out is None:
        buffers = [buffer(t, name, written=True) for t, name in zip(inputs, names, strict=True)]
        if len(buffers) > 1:
            check_disjoint([(b.address, b.bytes) for b in buffers], names)
        return [Operand(b.address, b.address, b.elements, b.code) for b in buffers]
    return _out_of_place(inputs, names, as_list(out, "out"))


def _out_of_place(inputs: list[Tensor], names: list[str], outputs: list[Tensor]) -> list[Operand]:
    if len(inputs) != len(outputs):
        raise UsageError(f"{len(inputs)} tensors and {len(outputs)} in out: pass one output per input")
    result: list[Operand] = []
    ranges: list[tuple[int, int]] = []
    labels: list[str] = []
    only_read: set[int] = set()
    for name, tensor, output in zip(names, inputs, outputs, strict=True):
        source = buffer(tensor, name, written=False)
        target = buffer(output, f"out for {name}", written=True)
        if (source.elements, source.code) != (target.elements, target.code):
            raise UsageError(f"{name} is {describe(tensor)}, its out is {describe(output)}: they must agree")
        result.append(Operand(source.address, target.address, source.elements, source.code))
        ranges.append((target.address, target.bytes))
        labels.append(f"out for {name}")
        if source.address != target.address:  # else: in place
            only_read.add(len(ranges))
            ranges.append((source.address, source.bytes))
            labels.append(name)
    check_disjoint(ranges, labels, only_read)
    return result


def as_list(value: Tensor | Sequence[Tensor], what: str) -> list[Tensor]:
    """One tensor or a list of them, as a list."""
    if not isinstance(value, list | tuple):
        return [value]
    if not value:
        raise UsageError(f"{what}: the list is empty; pass at least one tensor, or call barrier()")
    if len(value) > TENSORS_MAX:
        raise UsageError(f"{what}: {len(value)} tensors; one operation takes {TENSORS_MAX}: join small ones")
    return list(value)


def buffer(tensor: Tensor, name: str, *, written: bool) -> Buffer:
    """The memory of one tensor. `written`: it must be writable."""
    if isinstance(tensor, np.ndarray):
        return _numpy_buffer(tensor, name, written)
    if is_torch(tensor):
        return _torch_buffer(tensor, name)
    raise UsageError(f"{name} is a {type(tensor).__qualname__}; pass a numpy array or a torch tensor")


def is_torch(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def describe(tensor: Tensor) -> str:
    """Like `float32[3, 4]`, for messages and for the layout of a shared state."""
    return f"{dtype_name(tensor)}{list(tensor.shape)}"


def dtype_name(tensor: Tensor) -> str:
    if isinstance(tensor, np.ndarray):
        return str(tensor.dtype.name if tensor.dtype.isnative else tensor.dtype.str)
    return str(tensor.dtype).removeprefix("torch.")


# By dtype object: asking a dtype for its name costs more than all other checks together.
_numpy_codes: dict[np.dtype[Any], int] = {}
_torch_codes: dict[Any, int | None] = {}


def numpy_code(dtype: np.dtype[Any]) -> int | None:
    """The core's number for a dtype, None where it has none. bfloat16 comes from the ml_dtypes package."""
    code = _numpy_codes.get(dtype)
    if code is None and dtype.isnative:
        code = DTYPE_CODES.get(dtype.name)
        if code is not None:
            _numpy_codes[dtype] = code
    return code


def torch_code(dtype: Any) -> int | None:
    """As numpy_code, for a torch.dtype."""
    if dtype not in _torch_codes:
        _torch_codes[dtype] = DTYPE_CODES.get(str(dtype).removeprefix("torch."))
    return _torch_codes[dtype]


def _numpy_buffer(array: np.ndarray[Any, Any], name: str, written: bool) -> Buffer:
    code = numpy_code(array.dtype)
    if code is None:
        raise UsageError(_refused_dtype(array, name))
    flags = array.flags
    if not flags.c_contiguous:
        raise UsageError(f"{name} {describe(array)} is not contiguous: pass np.ascontiguousarray(...) of it")
    if written and not flags.writeable:
        raise UsageError(f"{name} {describe(array)} is read-only: pass a copy, or a writable array as out")
    if isinstance(array, np.ma.MaskedArray):
        raise UsageError(f"{name} is a masked array: pass its .data, or .filled(...)")
    return Buffer(array.__array_interface__["data"][0], array.size, code, array.nbytes)


def _torch_buffer(tensor: Any, name: str) -> Buffer:
    code = torch_code(tensor.dtype)
    dense = tensor.layout is sys.modules["torch"].strided and not hasattr(type(tensor), "to_local")
    reachable = tensor.is_cpu or tensor.is_cuda  # CUDA tensors: cuda_staging.py copies them
    if code is None or not dense or not reachable or not tensor.is_contiguous() or tensor.is_neg():
        raise _refused_torch(tensor, name)
    address, count = tensor.data_ptr(), tensor.numel()
    if address == 0 and count:
        raise UsageError(f"{name} has no memory, as tensors that a compiler traces with: pass a real one")
    return Buffer(address, count, code, count * tensor.element_size())


def _refused_torch(tensor: Any, name: str) -> Exception:
    check_torch(tensor, name)
    if not (tensor.is_cpu or tensor.is_cuda):
        return UsageError(f"{name} is on {tensor.device}, neither host nor CUDA: pass tensor.cpu()")
    if torch_code(tensor.dtype) is None:
        return UsageError(_refused_dtype(tensor, name))
    if not tensor.is_contiguous():
        return UsageError(f"{name} {describe(tensor)} is not contiguous: pass tensor.contiguous()")
    return UsageError(f"{name} is a negated view: pass tensor.resolve_neg()")


def check_torch(tensor: Any, name: str) -> None:
    """Raises for tensors that have no plain memory of their own."""
    if hasattr(tensor, "to_local"):
        raise UsageError(f"{name} is distributed over several processes: pass tensor.to_local()")
    if str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise UsageError(f"{name} has layout {tensor.layout} of {tensor.dtype}: pass a dense tensor")
    if tensor.device.type == "meta":
        raise UsageError(f"{name} is on the meta device and has no values")


def _refused_dtype(tensor: Tensor, name: str) -> str:
    return f"{name} is {describe(tensor)}; all_reduce and broadcast take {', '.join(DTYPE_CODES)}"


def check_disjoint(
    ranges: Sequence[tuple[int, int]], names: Sequence[str], only_read: Collection[int] = ()
) -> None:
    """Two tensors of one call that share memory would overwrite each other, unless both are only read.

    `ranges`: (address, bytes). `only_read`: indices of those that nothing is written to.
    """
    order = sorted((address, address + size, i) for i, (address, size) in enumerate(ranges) if size)
    read = written = (0, -1)  # of those before, which reaches farthest: (end, index)
    for begin, end, index in order:
        for before, other in (written,) if index in only_read else (written, read):
            if begin < before:
                first, second = sorted((other, index))
                raise UsageError(f"{names[first]} and {names[second]} share memory: pass each one only once")
        if index in only_read:
            read = max(read, (end, index))
        else:
            written = max(written, (end, index))
