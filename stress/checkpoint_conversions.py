"""Conversions that are killed: what is there under its name is whole, and the same command works again."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

from .checkpoint_savers import ELEMENTS, TENSORS, Task, left_over

ROUNDS_KEPT = 2


def prepare_conversions() -> None:
    import pccl_py.checkpoint.export_step
    import pccl_py.checkpoint.import_sources
    import pccl_py.checkpoint.reshard
    import pccl_py.cli.ckpt_change
    import pccl_py.cli.ckpt_convert  # noqa: F401


class Conversions:
    """Step n: a safetensors file is imported into `in`, resharded into `out`, exported in three formats."""

    def __init__(self, task: Task) -> None:
        self._task, self._root = task, task.root
        self._in, self._out = self._root / "in", self._root / "out"
        self._dice = random.Random(task.seed)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the commands print
        sys.stdout = open(os.devnull, "w")

    def run(self) -> None:
        step = self._newest()
        faults = self._faults()
        self._task.say("loaded", step, "; ".join(faults) or "right")
        if self._task.only_load:
            for root in filter(Path.exists, (self._in, self._out)):
                self._command("gc", root, "--keep", ROUNDS_KEPT)
                if left := left_over(root):
                    self._task.say("wrong", f"left over: {left}")
            return
        while True:
            step += 1
            self._convert(step)
            self._task.say("durable", step)

    def _convert(self, step: int) -> None:
        source = self._root / "source.safetensors"
        self._write_source(source, step)
        if not self._has(self._in, step):
            self._command("import", source, self._in, "--step", step)
        if not self._has(self._out, step):
            self._command("reshard", self._in, self._out, "--step", step, "--shards", 3)
        for to in ("safetensors", "torch", "dcp"):
            if not (target := self._root / f"{step}.{to}").exists():
                self._command("export", self._out, target, "--to", to, "--step", step, "--part", "model")
        for root in (self._in, self._out):
            if self._dice.random() < 0.5:
                self._command("gc", root, "--keep", ROUNDS_KEPT)

    def _command(self, name: str, *words: object) -> None:
        from pccl_py.cli import main

        if (status := main(["ckpt", name, *map(str, words)])) != 0:
            self._task.say("wrong", f"ckpt {name} {words}: status {status}")

    def _newest(self) -> int:
        """Of those that all conversions have been made of."""
        found = [int(path.stem) for path in self._root.glob("*.dcp")]
        return max(found, default=-1)

    @staticmethod
    def _has(root: Path, step: int) -> bool:
        from pccl_py.checkpoint import folder

        return any(found.step == step for found in folder.scan(root).steps)

    def _faults(self) -> list[str]:
        """Of steps and exports; the exports are read by their own libraries."""
        from pccl_py.checkpoint import folder
        from pccl_py.checkpoint.plain_reader import read_tensor
        from pccl_py.checkpoint.verify import verify_step

        faults = []
        for root in (self._in, self._out):
            for step in folder.scan(root).steps:
                if step.manifest is None or not step.complete or not verify_step(step.path).sound:
                    faults.append(f"{step.path} is not whole: {step.faults} {step.missing}")
                elif any(
                    read_tensor(step.path, step.manifest, f"model/t{index}") != _bytes(step.step, index)
                    for index in range(TENSORS)
                ):
                    faults.append(f"{step.path} holds something else")
        for path in sorted(self._root.iterdir()):
            if path.suffix in (".safetensors", ".torch", ".dcp") and path.stem.isdecimal():
                if not _same(self._read(path), int(path.stem)):
                    faults.append(f"{path} holds something else")
                if int(path.stem) <= self._newest() - ROUNDS_KEPT:
                    _remove(path)
        return faults

    @staticmethod
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

    @staticmethod
    def _write_source(path: Path, step: int) -> None:
        import safetensors.torch
        import torch

        state = {f"t{index}": torch.full((ELEMENTS,), float(step * 31 + index)) for index in range(TENSORS)}
        safetensors.torch.save_file(state, path)


def _bytes(step: int, index: int) -> bytes:
    import torch

    return torch.full((ELEMENTS,), float(step * 31 + index)).numpy().tobytes()


def _same(state: dict[str, Any], step: int) -> bool:
    return all(bool((state[f"t{index}"] == step * 31 + index).all()) for index in range(TENSORS))


def _remove(path: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
