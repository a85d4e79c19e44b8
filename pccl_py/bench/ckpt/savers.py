"""The ways to save that are compared: each begins a save, says when it is durable, and loads it cold."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from ...checkpoint.checkpointer import Checkpointer
from ...errors import UsageError
from ...staging import fence
from ...state import TrainState
from .state import tensors_of


class Ends:
    """When a future came to its end, in seconds since `begun`; None where it does not tell."""

    def __init__(self, future: Any, begun: float) -> None:
        self.seconds: float | None = None
        if hasattr(future, "add_done_callback"):
            future.add_done_callback(lambda _: self._note(time.perf_counter() - begun))

    def _note(self, seconds: float) -> None:
        self.seconds = seconds


class Saver(Protocol):
    """`begin` is the call that the training makes; `done`: all is fsynced; `load` reads into the state."""

    def begin(self, number: int) -> None: ...
    def done(self) -> bool: ...
    def durable_s(self) -> float | None:
        """Seconds from the last `begin` until that save was durable, by its own word; None: it has none."""

    def finish(self) -> None: ...
    def update(self) -> None:
        """What has to come before the state may be changed."""

    def load(self) -> None: ...
    def close(self) -> None: ...


class Ours:
    def __init__(self, folder: Path, model: nn.Module, optimizer: Any, share_of_state: float) -> None:
        size = sum(tensor.nbytes for tensor in tensors_of(model, optimizer).values())
        self.pool_bytes = int(size * share_of_state) + (32 << 20)
        self._saver = Checkpointer(folder, keep=1, pool_bytes=self.pool_bytes, process_group="alone")
        self._state = TrainState(model=model, inner=optimizer)

    def prepare(self) -> None:
        self._saver.prepare(self._state)

    def begin(self, number: int) -> None:
        self._saver.save(number, self._state)

    def done(self) -> bool:
        return not self._saver.busy()

    def durable_s(self) -> float | None:
        last = self._saver.stats.last
        return None if last is None else last.durable_s

    def finish(self) -> None:
        self._saver.wait()

    def update(self) -> None:
        fence.before_write()

    def load(self) -> None:
        self._saver.load(self._state)

    def close(self) -> None:
        self._saver.close()


class Dcp:
    """torch.distributed.checkpoint's async_save by a thread. `staged`: the copy is made by a thread, too."""

    def __init__(self, folder: Path, model: nn.Module, optimizer: Any, staged: bool) -> None:
        from importlib import import_module

        from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

        self._dcp: Any = import_module("torch.distributed.checkpoint")
        self._folder, self._model, self._optimizer = folder, model, optimizer
        self._staged = staged
        self._stager = DefaultStager(StagingOptions(False, False, staged, False))
        self._future: Any = None
        self._copied: Any = None
        self._ends: Ends | None = None
        self._last = folder
        self._earlier: list[tuple[Any, Path]] = []  # saves that a later one has replaced

    def _state(self) -> dict[str, Any]:
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def begin(self, number: int) -> None:
        begun = time.perf_counter()
        if self._future is not None:
            self._earlier.append((self._future, self._last))
        self._last = self._folder / f"step-{number}"
        writer = self._dcp.FileSystemWriter(self._last, single_file_per_rank=True, sync_files=True)
        future = self._dcp.async_save(
            self._state(), storage_writer=writer, async_stager=self._stager, no_dist=True
        )
        self._future = getattr(future, "upload_completion", future)
        self._ends = Ends(self._future, begun)
        self._copied = getattr(future, "staging_completion", None)
        self._drop_earlier()

    def _drop_earlier(self) -> None:
        """A save may begin while the one before is being written: its folder waits for the next save."""
        for future, folder in [earlier for earlier in self._earlier if earlier[0].done()]:
            shutil.rmtree(folder)
            self._earlier.remove((future, folder))

    def done(self) -> bool:
        return bool(self._future.done())

    def durable_s(self) -> float | None:
        return None if self._ends is None else self._ends.seconds

    def finish(self) -> None:
        self._future.result()

    def update(self) -> None:
        if self._copied is not None:
            self._copied.result()

    def load(self) -> None:
        self._dcp.load(self._state(), storage_reader=self._dcp.FileSystemReader(self._last), no_dist=True)

    def close(self) -> None:
        self._stager.close()


class TorchCheckpointing:
    """The package of that name (PyPI), asynchronous, set so that it works without a GPU and on
    ext4; its saver process is started before the first save. It never fsyncs: durable is what it says."""

    def __init__(self, folder: Path, model: nn.Module, optimizer: Any) -> None:
        from importlib import import_module

        tc: Any = import_module("torch_checkpointing")
        staging: Any = import_module("torch_checkpointing.staging")
        storage: Any = import_module("torch_checkpointing.storage.filesystem")
        stager = staging.CheckpointStagerConfig(use_pinned_memory=False, use_non_blocking_copy=False)
        self._manager = tc.CheckpointManager(
            tc.CheckpointManager.Config(
                save=tc.AsyncCheckpointSaverConfig(staging_config=stager),
                storage_config=storage.LocalFileSystemStorageConfig(use_direct_io=False),
            )
        )
        self._folder, self._model, self._optimizer = folder, model, optimizer
        self._future: Any = None
        self._ends: Ends | None = None
        self._last: Path | None = None

    def _state(self) -> dict[str, Any]:
        return {"state": tensors_of(self._model, self._optimizer)}

    def begin(self, number: int) -> None:
        begun = time.perf_counter()
        before, self._last = self._last, self._folder / f"step-{number}"
        self._future = self._manager.save(str(self._last), self._state())
        self._ends = Ends(self._future, begun)
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def done(self) -> bool:
        return bool(self._future.done())

    def durable_s(self) -> float | None:
        return None if self._ends is None else self._ends.seconds

    def finish(self) -> None:
        self._future.result()

    def update(self) -> None:
        with self._manager.lock():
            pass

    def load(self) -> None:
        self._manager.load(str(self._last), into=self._state())

    def close(self) -> None:
        self._manager.close()


class _Synchronous:
    """Saves within the call, with an fsync of file and folder; the file of the save before is removed."""

    def __init__(self, folder: Path, model: nn.Module, optimizer: Any) -> None:
        self._folder, self._model, self._optimizer = folder, model, optimizer
        self._path = folder / "none"

    def begin(self, number: int) -> None:
        before, self._path = self._path, self._folder / f"step-{number}"
        self._write(self._path)
        with open(self._path, "rb") as file:
            os.fsync(file.fileno())
        place = os.open(self._folder, os.O_RDONLY)
        os.fsync(place)
        os.close(place)
        before.unlink(missing_ok=True)

    def done(self) -> bool:
        return True

    def durable_s(self) -> float | None:
        return None

    def finish(self) -> None:
        pass

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _write(self, path: Path) -> None:
        raise NotImplementedError


class TorchSave(_Synchronous):
    def _write(self, path: Path) -> None:
        torch.save(tensors_of(self._model, self._optimizer), path)

    def load(self) -> None:
        _copy_in(self._model, self._optimizer, torch.load(self._path, weights_only=True))


class Safetensors(_Synchronous):
    def _write(self, path: Path) -> None:
        from safetensors.torch import save_file

        save_file(tensors_of(self._model, self._optimizer), path)

    def load(self) -> None:
        from safetensors.torch import load_file

        _copy_in(self._model, self._optimizer, load_file(self._path))


def _copy_in(model: nn.Module, optimizer: Any, saved: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors_of(model, optimizer).items():
            tensor.copy_(saved[name])


METHODS = ("ours", "ours_quarter", "dcp", "dcp_staged", "torch_checkpointing", "torch", "safetensors")


def saver(method: str, folder: Path, model: nn.Module, optimizer: Any) -> Saver:
    if method == "ours":
        return Ours(folder, model, optimizer, 1.0)
    if method == "ours_quarter":
        return Ours(folder, model, optimizer, 0.25)
    if method in ("dcp", "dcp_staged"):
        return Dcp(folder, model, optimizer, method == "dcp_staged")
    if method == "torch_checkpointing":
        return TorchCheckpointing(folder, model, optimizer)
    if method == "torch":
        return TorchSave(folder, model, optimizer)
    if method == "safetensors":
        return Safetensors(folder, model, optimizer)
    raise UsageError(f"--against {method}: one of {', '.join(METHODS)}")
