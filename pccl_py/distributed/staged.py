"""From a torch tensor of any kind to one that the core takes, and back when the operation has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..errors import UsageError
from ..tensors import check_torch, torch_code

Back = Callable[[], None]
Tensors = Sequence[torch.Tensor]
_PLAIN = (torch.Tensor, torch.nn.Parameter)


def lend(
    tensor: torch.Tensor, what: str, *, reduced: bool, written: bool = True
) -> tuple[torch.Tensor, Back | None]:
    """(a dense tensor of a dtype of the core's, what brings the result back).

    reduced   the values are computed with. Else they only travel, and any dtype is bytes
    written   the operation writes to it; else nothing is brought back

    A contiguous tensor lends its own memory, others are copied. Tensors on a CUDA device stay there: the core
    takes them through host memory. Raises UsageError for what has no values to lend.
    """
    check_torch(tensor, what)
    if tensor.device.type not in ("cpu", "cuda"):
        raise UsageError(f"{what} is on {tensor.device}: pccl takes tensors on the CPU or a CUDA device")
    plain = tensor.detach()
    if plain.is_contiguous() and not plain.is_conj() and not plain.is_neg():
        return _as_core(plain, what, reduced), None
    copy = plain.contiguous().resolve_conj().resolve_neg()
    return _as_core(copy, what, reduced), (lambda: _copy(plain, copy)) if written else None


def plain_code(tensor: torch.Tensor) -> int | None:
    """The number of the dtype of a tensor on the CPU that lends its own memory as it is; else None."""
    if not tensor.is_cpu or type(tensor) not in _PLAIN or tensor.layout is not torch.strided:
        return None
    return torch_code(tensor.dtype) if tensor.is_contiguous() and not tensor.is_neg() else None


def _copy(to: torch.Tensor, source: torch.Tensor) -> None:
    to.copy_(source)


def _as_core(dense: torch.Tensor, what: str, reduced: bool) -> torch.Tensor:
    if torch_code(dense.dtype) is not None:
        return dense
    if dense.dtype == torch.bool:
        return dense.view(torch.uint8)
    if not reduced:
        return dense.reshape(-1).view(torch.uint8)
    if dense.is_complex() and dense.dtype != torch.complex32:
        return torch.view_as_real(dense)
    raise UsageError(
        f"{what} is {str(dense.dtype).removeprefix('torch.')}: it can be sent around, not reduced; "
        "convert it to float32 or bfloat16 first"
    )


def joined(tensors: list[torch.Tensor]) -> torch.Tensor | None:
    """The flat tensor whose parts these are, one after the other in one memory; None where they are not."""
    first = tensors[0]
    address = first.data_ptr()
    for tensor in tensors:
        if tensor.dtype != first.dtype or not tensor.is_contiguous() or tensor.data_ptr() != address:
            return None
        if tensor.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return None
        address += tensor.numel() * tensor.element_size()
    count = sum(tensor.numel() for tensor in tensors)
    return first.detach().as_strided((count,), (1,))


def one_dtype(tensors: Tensors, what: str) -> torch.dtype:
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) != 1:
        raise UsageError(f"{what}: tensors of one dtype, please; these are {sorted(map(str, dtypes))}")
    return dtypes.pop()


def lend_all(
    tensors: Tensors, what: str, *, reduced: bool, written: bool = True
) -> tuple[list[torch.Tensor], list[Back]]:
    pairs = [lend(tensor, what, reduced=reduced, written=written) for tensor in tensors]
    return [tensor for tensor, _ in pairs], [back for _, back in pairs if back is not None]


def apart(source: torch.Tensor, targets: list[torch.Tensor]) -> torch.Tensor:
    """A copy where the input lies in an output, as torch allows."""
    begin, end = source.data_ptr(), source.data_ptr() + source.numel() * source.element_size()
    for target in targets:
        first = target.data_ptr()
        if begin < first + target.numel() * target.element_size() and first < end:
            return source.clone()
    return source


def spread(tensors: Tensors) -> tuple[torch.Tensor, Back | None]:
    """(flat memory for all of them, what copies it to them): without a copy where they lie in a row."""
    flat = joined(list(tensors))
    if flat is not None:
        return flat, None
    first, count = tensors[0], sum(t.numel() for t in tensors)
    flat = torch.empty(count, dtype=first.dtype, device=first.device)

    def pour() -> None:
        offset = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[offset : offset + tensor.numel()].view(tensor.shape))
            offset += tensor.numel()

    return flat, pour


def packed(tensors: Tensors) -> torch.Tensor:
    flat = joined(list(tensors))
    if flat is not None:
        return flat
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
