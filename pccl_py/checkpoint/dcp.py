"""Doors for torch.distributed.checkpoint: existing `dcp.save`, `async_save` and `load` code gets our format.

    writer = pccl_py.checkpoint.dcp.StorageWriter("/nvme/run7/100")
    dcp.save(state, storage_writer=writer)          # or async_save: the writer is its own stager
    dcp.load(state, storage_reader=StorageReader("/nvme/run7/100"))

A checkpoint is the folder that is named: shard files, and a manifest that is written last and replaces an
older one at once, so that a crash leaves the older checkpoint or the new one. No pickle is on the disk: plain
values are tagged JSON, and torch's Metadata is made anew from the manifest. What a planner gives as bytes of
its own making is refused.
"""

from __future__ import annotations

import io
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from ..errors import DamagedError, NoCheckpointError, StateError, UsageError
from ..state.boxed import Boxed, dtype_name
from ..values import dtypes, limits, names, tagged
from . import folder, manifest, native
from .boxes import Box, whole
from .dcp_shard import ItemTensor, write_shard
from .dcp_stager import AsyncStager
from .files import PART, explained, sync_folder, write_durably
from .manifest import FILE_NAME, Manifest
from .manifest_body import is_shard_file
from .rank_record import decode_record, encode_record, merge
from .read import read_tensors

__all__ = ["AsyncStager", "StorageReader", "StorageWriter"]

DOOR = "torch.distributed.checkpoint"
PLANNER_DATA = "~planner_data"  # no name of a tensor or value is written so


class StorageWriter(storage.StorageWriter, AsyncStager):
    """`path`: the folder of the checkpoint, or what `checkpoint_id=` says. Also the stager of async_save.

    step    in the manifest; None: the number that the folder's name ends with, or 0
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, step: int | None = None) -> None:
        AsyncStager.__init__(self)
        self._path = None if path is None else Path(path)
        self._step = step
        self._rank = 0

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        if checkpoint_id is not None:
            self._path = Path(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        if not kwargs.get("use_collectives", True):
            raise UsageError("use_collectives=False: a checkpoint of this format is of all ranks together")
        path = self.checkpoint_id
        with explained(f"make {path}"):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint_id(self) -> Path:
        if self._path is None:
            raise UsageError("no folder: StorageWriter(path), or checkpoint_id= of dcp.save")
        return self._path

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Names the shard files: others than those of a checkpoint that is there and stays until this one
        is."""
        word = secrets.token_hex(4)
        files = [f"shard-{rank:05d}-of-{len(plans):05d}-{word}.safetensors" for rank in range(len(plans))]
        return [
            replace(plan, storage_data=(rank, file))
            for rank, (plan, file) in enumerate(zip(plans, files, strict=True))
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        rank, file = plan.storage_data
        tensors, objects = [], {}
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                name = names.join((item.index.fqn,))
                objects[name] = tagged.encode(_value_of(planner, item), path=(item.index.fqn,))
            else:
                tensors.append(_tensor_of(planner, item))
        record = write_shard(self.checkpoint_id, file, rank, tensors)
        words = encode_record(replace(record, objects=objects))
        size = 0 if record.shard is None else record.shard.bytes
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(MetadataIndex(f"rank {rank}"), size, words)])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """On the coordinator, when all shards are durable: the manifest, then what it replaces goes."""
        path = self.checkpoint_id
        records = [
            decode_record(one.storage_data, limits.BLOCK_BYTES, what=f"the record of rank {rank}")
            for rank, given in enumerate(results)
            for one in given
        ]
        if metadata.planner_data is not None:
            first = records[0]
            mapping = {fqn: tuple(where) for fqn, where in metadata.planner_data.items()}
            more = {PLANNER_DATA: tagged.encode(mapping)}
            records[0] = replace(first, objects={**first.objects, **more})
        made = merge(records, step=self._number(), time=time.time(), world=len(results), notes={"door": DOOR})
        with explained(f"commit {path}"):
            sync_folder(path)
            write_durably(path, FILE_NAME, manifest.encode(made))
            sync_folder(path.parent)
        _remove_others(path, made)

    def _number(self) -> int:
        if self._step is not None:
            return self._step
        found = re.search(r"([0-9]{1,12})$", self.checkpoint_id.name)
        return int(found[1]) if found else 0

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return "://" not in str(checkpoint_id)

    def storage_meta(self) -> StorageMeta:
        return StorageMeta(checkpoint_id=self.checkpoint_id)


class StorageReader(storage.StorageReader):
    """Reads a folder that StorageWriter wrote, or a step of a Checkpointer (its tensors, as "part.name")."""

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._manifest: Manifest | None = None
        self._names: dict[str, str] = {}  # in the manifest, by torch's name

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        self._manifest = None
        if checkpoint_id is not None:
            self._path = Path(checkpoint_id)

    @property
    def checkpoint_id(self) -> Path:
        if self._path is None:
            raise UsageError("no folder: StorageReader(path), or checkpoint_id= of dcp.load")
        return self._path

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        made = self._found()
        table: dict[str, Any] = {}
        for name, tensor in made.tensors.items():
            boxes = [piece.box for piece in tensor.pieces] or [whole(tensor.shape)]
            chunks = [ChunkStorageMetadata(torch.Size(b.start), torch.Size(b.shape)) for b in boxes]
            properties = TensorProperties(dtypes.to_torch(tensor.dtype))
            self._names[fqn := _fqn(name)] = name
            table[fqn] = TensorStorageMetadata(properties, torch.Size(tensor.shape), chunks)
        planner_data = None
        if made.notes.get("door") == DOOR:
            for name in made.objects.keys() - {PLANNER_DATA}:
                self._names[fqn := _fqn(name)] = name
                table[fqn] = BytesStorageMetadata()
            if PLANNER_DATA in made.objects:
                planner_data = tagged.decode(made.objects[PLANNER_DATA])
        meta = StorageMeta(checkpoint_id=self.checkpoint_id)
        return Metadata(table, planner_data=planner_data, storage_data=None, storage_meta=meta)

    def _found(self) -> Manifest:
        if self._manifest is None:
            step = folder.read_step(self.checkpoint_id)
            if step is None:
                raise NoCheckpointError(f"{self.checkpoint_id} holds no checkpoint: it has no {FILE_NAME}")
            if step.manifest is None or step.faults:
                raise DamagedError("; ".join(step.faults))
            self._manifest = step.manifest
        return self._manifest

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        if not self._names:
            self.read_metadata()

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        made = self._found()
        wanted: dict[str, list[Boxed]] = {}
        after: list[tuple[ReadItem, Tensor, Tensor]] = []
        for item in plan.items:
            name = self._names[item.storage_index.fqn]
            if item.type == LoadItemType.BYTE_IO:
                planner.load_bytes(item, _stream(tagged.decode(made.objects[name])))
                continue
            target = planner.resolve_tensor(item).detach()
            boxed = _boxed(made, name, item, target)
            after.append((item, target, boxed.tensor))
            wanted.setdefault(name, []).append(boxed)
        read_tensors(native.Disk(), self.checkpoint_id, made, wanted)
        for item, target, memory in after:
            if memory is not target:
                target.copy_(memory)
            planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return (Path(checkpoint_id) / FILE_NAME).exists()


def _fqn(name: str) -> str:
    return ".".join(names.split(name))


def _stream(value: Any) -> io.BytesIO:
    """As planners expect values: in memory alone."""
    stream = io.BytesIO()
    torch.save(value, stream)
    stream.seek(0)
    return stream


def _value_of(planner: SavePlanner, item: WriteItem) -> Any:
    """The value itself, which a planner of torch's own would pickle."""
    look = getattr(planner, "lookup_object", None)
    default = DefaultSavePlanner.transform_object
    if look is None or getattr(type(planner), "transform_object", default) is not default:
        raise StateError(
            f"{item.index.fqn}: {type(planner).__qualname__} makes bytes of it, and this format has "
            "values only: "
            "use a planner with DefaultSavePlanner's lookup_object and transform_object, or leave it out"
        )
    return look(item.index)


def _tensor_of(planner: SavePlanner, item: WriteItem) -> ItemTensor:
    data, said = planner.resolve_data(item), item.tensor_data
    fqn = item.index.fqn
    if not isinstance(data, Tensor) or said is None:
        raise StateError(f"{fqn}: the planner gives {type(data).__name__}, not a tensor")
    tensor = data.detach()
    chunk = Box(tuple(said.chunk.offsets), tuple(said.chunk.sizes))
    if tuple(tensor.shape) != chunk.shape:
        raise StateError(f"{fqn}: the planner gives {tuple(tensor.shape)} where its plan says {chunk.shape}")
    return ItemTensor(names.join((fqn,)), dtype_name(tensor, fqn), tuple(said.size), chunk, tensor)


def _boxed(made: Manifest, name: str, item: ReadItem, target: Tensor) -> Boxed:
    entry = made.tensors[name]
    chunk = item.storage_index.offset or (0,) * len(entry.shape)
    start = tuple(first + more for first, more in zip(chunk, item.storage_offsets, strict=True))
    if tuple(target.shape) != tuple(item.lengths):
        raise StateError(f"{name}: a place of {tuple(target.shape)} for {tuple(item.lengths)} elements")
    dtype = dtypes.to_torch(entry.dtype)
    memory = target if target.dtype == dtype else torch.empty(tuple(item.lengths), dtype=dtype)
    return Boxed(memory, entry.dtype, entry.shape, start, 0, 1)


def _remove_others(path: Path, made: Manifest) -> None:
    """Shards of what was there before, and what crashes left."""
    kept = {shard.file for shard in made.shards}
    with suppress(OSError):
        for name in os.listdir(path):
            if is_shard_file(name.removesuffix(PART)) and name not in kept:
                (path / name).unlink(missing_ok=True)
