"""From a torch tensor of any kind to memory that the core can take, and back when the operation has ended."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..errors import UsageError
from ..tensors import check_torch, torch_code

Back = Callable[[], None]


def lend(
    tensor: torch.Tensor, what: str, *, reduced: bool, written: bool = True
) -> tuple[torch.Tensor, Back | None]:
    """(a dense CPU tensor of a dtype of the core's, what brings the result back).

    reduced   the values are computed with. Else they only travel, and any dtype is bytes
    written   the operation writes to it; else nothing is brought back

    A contiguous CPU tensor lends its own memory. Others are copied: what is on a CUDA device goes through
    pinned memory on a stream of its own. Raises UsageError for what has no values to lend.
    """
    check_torch(tensor, what)
    if tensor.device.type not in ("cpu", "cuda"):
        raise UsageError(f"{what} is on {tensor.device}: pccl takes tensors on the CPU or a CUDA device")
    plain = tensor.detach()
    copied = plain.is_cuda or not plain.is_contiguous() or plain.is_conj() or plain.is_neg()
    host = _host_copy(plain) if copied else plain
    back = None
    if copied and written:
        back = _bringing(plain, host)
    return _as_core(host, what, reduced), back


def _as_core(host: torch.Tensor, what: str, reduced: bool) -> torch.Tensor:
    if torch_code(host.dtype) is not None:
        return host
    if host.dtype == torch.bool:
        return host.view(torch.uint8)
    if not reduced:
        return host.reshape(-1).view(torch.uint8)
    if host.is_complex() and host.dtype != torch.complex32:
        return torch.view_as_real(host)
    raise UsageError(
        f"{what} is {str(host.dtype).removeprefix('torch.')}: it can be sent around, not reduced; "
        "convert it to float32 or bfloat16 first"
    )


def _host_copy(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_cuda:
        return tensor.contiguous().resolve_conj().resolve_neg()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    stream = _side_stream(tensor.device)
    stream.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(stream):
        host.copy_(tensor, non_blocking=True)
    tensor.record_stream(stream)
    stream.synchronize()
    return host


def _bringing(tensor: torch.Tensor, host: torch.Tensor) -> Back:
    def bring() -> None:
        if not tensor.is_cuda:
            tensor.copy_(host)
            return
        stream = _side_stream(tensor.device)
        with torch.cuda.stream(stream):
            tensor.copy_(host, non_blocking=True)
        stream.synchronize()  # whoever waited may use it on any stream

    return bring


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _side_stream(device: torch.device) -> torch.cuda.Stream:
    stream = _streams.get(device)
    if stream is None:
        stream = _streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def joined(tensors: list[torch.Tensor]) -> torch.Tensor | None:
    """The flat tensor whose parts these are, one after the other in one memory; None where they are not."""
    first = tensors[0]
    if not first.is_cpu:
        return None
    address = first.data_ptr()
    for tensor in tensors:
        if tensor.dtype != first.dtype or not tensor.is_contiguous() or tensor.data_ptr() != address:
            return None
        if tensor.untyped_storage().data_ptr() != first.untyped_storage().data_ptr():
            return None
        address += tensor.numel() * tensor.element_size()
    count = sum(tensor.numel() for tensor in tensors)
    return first.detach().as_strided((count,), (1,))
