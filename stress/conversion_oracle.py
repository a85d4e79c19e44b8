"""What conversions have made, read again: steps by their checksums and values, exports by the libraries whose
formats they are in. Tensor t<index> of step n is all n * 31 + index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .checkpoint_savers import ELEMENTS, TENSORS

ROOTS = ("in", "out")  # imported, resharded
FORMATS = ("safetensors", "torch", "dcp")


def value(step: int, index: int) -> float:
    return float(step * 31 + index)


def newest(root: Path) -> int:
    """The step of which all conversions have been made; -1: there is none."""
    return max((int(path.stem) for path in root.glob("*.dcp")), default=-1)


def exports(root: Path) -> list[Path]:
    """Those that are there under their names."""
    return [path for path in sorted(root.iterdir()) if path.suffix[1:] in FORMATS and path.stem.isdecimal()]


def faults_in(root: Path) -> list[str]:
    """What is not as it should be; nothing is wrong with what is not there."""
    return [fault for name in ROOTS for fault in _of_steps(root / name)] + [
        f"{path} holds something else" for path in exports(root) if not _same(_read(path), int(path.stem))
    ]


def _of_steps(root: Path) -> list[str]:
    from pccl_py.checkpoint import folder
    from pccl_py.checkpoint.plain_reader import read_tensor
    from pccl_py.checkpoint.verify import verify_step

    faults = []
    for step in folder.scan(root).steps:
        if step.manifest is None or not step.complete or not verify_step(step.path).sound:
            faults.append(f"{step.path} is not whole: {step.faults} {step.missing}")
        elif any(
            read_tensor(step.path, step.manifest, f"model/t{index}") != _bytes(step.step, index)
            for index in range(TENSORS)
        ):
            faults.append(f"{step.path} holds something else")
    return faults


def _read(path: Path) -> dict[str, Any]:
    import safetensors.torch
    import torch
    import torch.distributed.checkpoint as theirs

    if path.suffix == ".safetensors":
        return dict(safetensors.torch.load_file(path))
    if path.suffix == ".torch":
        return dict(torch.load(path, weights_only=True))
    state = {f"t{index}": torch.zeros(ELEMENTS) for index in range(TENSORS)}
    theirs.load(state, checkpoint_id=path, no_dist=True)
    return state


def _bytes(step: int, index: int) -> bytes:
    import torch

    return torch.full((ELEMENTS,), value(step, index)).numpy().tobytes()


def _same(state: dict[str, Any], step: int) -> bool:
    return all(bool((state[f"t{index}"] == value(step, index)).all()) for index in range(TENSORS))
