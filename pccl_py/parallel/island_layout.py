"""How a model is sharded inside an island: a line of text per tensor, and the shards of this rank.

FSDP2 and other DTensors, FSDP1 (flat parameters, with and without `use_orig_params`) and plain tensors, which
every rank of the island has whole. Touched by the training thread only.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from xxhash import xxh3_64_hexdigest

NAME_BYTES = 180  # of the 256 that a name in a shared state may have with dtype and shape


def local(tensor: Tensor) -> Tensor:
    """The memory of this rank's part: what is written to it is written to the tensor."""
    with torch.no_grad():
        plain = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return plain.detach()


def parameters_of(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """By the names that they have without FSDP's wrappers, where each name then is one parameter's."""
    return {name.replace("_fsdp_wrapped_module.", ""): p for name, p in model.named_parameters()}


def local_shards(model: torch.nn.Module) -> dict[str, Tensor]:
    """This rank's shard of each parameter, by name; a part of its memory, not a copy. Between two steps."""
    reshard(model)
    return {name: local(p) for name, p in parameters_of(model).items()}


def reshard(model: torch.nn.Module) -> None:
    """Frees what a forward pass without a backward has left gathered; FSDP2 gathers it again by itself."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def forget_pass(model: torch.nn.Module) -> None:
    """After an exception in a forward or backward pass: without this, FSDP2 (of torch 2.13) takes the next
    one for its continuation, and leaves gradients unreduced. What was gathered or reduced is dropped."""
    if isinstance(model, FSDPModule):
        model.reset_iter_state()
        return
    for child in model.children():
        forget_pass(child)


def layout_of(model: torch.nn.Module) -> list[str]:
    """A line per parameter, buffer and FSDP1 unit, equal on all ranks of an island and on all islands whose
    shards may be averaged: name, dtype, global shape, placements, mesh."""
    lines = [f"{name} {_layout(p)}" for name, p in parameters_of(model).items() if not _is_flat(p)]
    lines += [f"buffer {name} {_layout(b)}" for name, b in model.named_buffers()]
    lines += _flat_units(model)
    return [shortened(line) for line in lines]


def shortened(line: str) -> str:
    """What is cut off is still told apart."""
    if len(line.encode()) <= NAME_BYTES:
        return line
    return f"{line.encode()[: NAME_BYTES - 20].decode(errors='ignore')}... {xxh3_64_hexdigest(line.encode())}"


def _layout(tensor: Tensor) -> str:
    dtype, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
    if not isinstance(tensor, DTensor):
        return f"{dtype} {shape} whole"
    mesh, places = tensor.device_mesh, ", ".join(map(_placement, tensor.placements))
    names = f" {'/'.join(mesh.mesh_dim_names)}" if mesh.mesh_dim_names else ""
    return f"{dtype} {shape} {places} over {'x'.join(map(str, mesh.shape))}{names}"


def _placement(placement: object) -> str:
    dim = getattr(placement, "dim", None)
    return type(placement).__name__ if dim is None else f"{type(placement).__name__}({dim})"


# ---- FSDP1 -------------------------------------------------------------------------------------------------


def fsdp1_units(model: torch.nn.Module) -> list[FullyShardedDataParallel]:
    if not any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        return []
    return FullyShardedDataParallel.fsdp_modules(model)


def _is_flat(parameter: torch.nn.Parameter) -> bool:
    """A part of a flat parameter: its own shape says how it is cut here, which differs between ranks."""
    return not isinstance(parameter, DTensor) and (
        hasattr(parameter, "_fqns") or getattr(parameter, "_fsdp_flattened", False)
    )


def _flat_units(model: torch.nn.Module) -> list[str]:
    lines = []
    for unit in fsdp1_units(model):
        flat = getattr(unit._handle, "flat_param", None)
        if flat is None:
            continue
        held = ", ".join(f"{n} {list(s)}" for n, s in zip(flat._fqns, flat._shapes, strict=True))
        strategy = unit.sharding_strategy.name
        dtype = str(flat.dtype).removeprefix("torch.")
        lines.append(
            f"{flat._fqns[0]} ... {dtype} {strategy} over {dist.get_world_size(unit.process_group)} of {held}"
        )
    return lines
