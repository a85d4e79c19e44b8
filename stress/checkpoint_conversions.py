"""Conversions that are killed: what is there under its name is whole, and the same command works again."""

from __future__ import annotations

import os
import random
import sys
from importlib import import_module
from pathlib import Path

from .checkpoint_savers import ELEMENTS, TENSORS, Task, left_over
from .conversion_oracle import FORMATS, exports, faults_in, newest, value

ROUNDS_KEPT = 2


def prepare_conversions() -> None:
    """All that a saver would import: seven hundred modules, which took a forked one a minute and a half of a
    busy machine, and looked like a hang."""
    for name in (
        "safetensors.torch",
        "torch.distributed.checkpoint",
        "pccl_py.checkpoint.export_step",
        "pccl_py.checkpoint.import_sources",
        "pccl_py.checkpoint.reshard",
        "pccl_py.checkpoint.torch_bytes",
        "pccl_py.cli.ckpt",
        "pccl_py.cli.ckpt_change",
        "pccl_py.cli.ckpt_check",
        "pccl_py.cli.ckpt_convert",
    ):
        import_module(name)


class Conversions:
    """Step n: a safetensors file is imported into `in`, resharded into `out`, exported in three formats."""

    def __init__(self, task: Task) -> None:
        self._task, self._root = task, task.root
        self._in, self._out = self._root / "in", self._root / "out"
        self._dice = random.Random(task.seed)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the commands print
        sys.stdout = open(os.devnull, "w")

    def run(self) -> None:
        step = newest(self._root)
        self._task.doing("read all of", step)
        faults = faults_in(self._root)
        for path in exports(self._root):  # before the first word, after which it may be killed
            if int(path.stem) <= step - ROUNDS_KEPT:
                _remove(path)
        self._task.say("loaded", step, "; ".join(faults) or "right")
        if self._task.only_load:
            for root in filter(Path.exists, (self._in, self._out)):
                self._command("gc", root, "--keep", ROUNDS_KEPT)
                if left := left_over(root):
                    self._task.say("wrong", f"left over: {left}")
            return
        while True:
            step += 1
            self._task.promise("durable", step)
            self._convert(step)
            self._task.say("durable", step)

    def _convert(self, step: int) -> None:
        source = self._root / "source.safetensors"
        self._write_source(source, step)
        if not self._has(self._in, step):
            self._command("import", source, self._in, "--step", step)
        if not self._has(self._out, step):
            self._command("reshard", self._in, self._out, "--step", step, "--shards", 3)
        for to in FORMATS:
            if not (target := self._root / f"{step}.{to}").exists():
                self._command("export", self._out, target, "--to", to, "--step", step, "--part", "model")
        for root in (self._in, self._out):
            if self._dice.random() < 0.5:
                self._command("gc", root, "--keep", ROUNDS_KEPT)

    def _command(self, name: str, *words: object) -> None:
        from pccl_py.cli import main

        self._task.doing("ckpt", name, *words)
        if (status := main(["ckpt", name, *map(str, words)])) != 0:
            self._task.say("wrong", f"ckpt {name} {words}: status {status}")

    @staticmethod
    def _has(root: Path, step: int) -> bool:
        from pccl_py.checkpoint import folder

        return any(found.step == step for found in folder.scan(root).steps)

    def _write_source(self, path: Path, step: int) -> None:
        import safetensors.torch
        import torch

        state = {f"t{index}": torch.full((ELEMENTS,), value(step, index)) for index in range(TENSORS)}
        if self._task.sabotage == "value":
            state[f"t{TENSORS - 1}"][ELEMENTS // 2] += 1
        safetensors.torch.save_file(state, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    else:
        path.unlink()
