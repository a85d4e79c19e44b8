"""Which ranks see the same folder of steps, and what several folders hold together.

One folder for all ranks, or one on each host: a host then has its ranks' shards, among them all that its ranks
hold of replicas, and a manifest that prefers these. The
first rank of a folder leads there. A step exists once one copy of its manifest is durable, for all shards were
durable before; whoever was killed before it had its copy gets it here.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..errors import CheckpointError, DamagedError
from . import folder, manifest, safetensors_header
from .coordination import Coordination
from .files import explained, opened, read_at, write_durably
from .manifest import Manifest, Piece


def folders_of(root: Path, coordination: Coordination, timeout_s: float) -> list[str]:
    """By rank, a word that ranks of one folder have in common."""
    if coordination.world.size == 1:
        with explained(f"use {root} for checkpoints"):
            root.mkdir(parents=True, exist_ok=True)
        return [""]
    nonce = secrets.token_hex(8).encode()
    (nonce,) = coordination.exchange("open/nonce", nonce, timeout_s, writers=[0])
    mark = root / f".mark-{nonce.decode()}"
    own, fault = secrets.token_hex(8), None
    try:
        seen = _marked(root, mark, own)
    except CheckpointError as error:
        seen, fault = f"!{error}", error
    found = [word.decode() for word in coordination.exchange("open/folder", seen.encode(), timeout_s)]
    if seen == own:
        mark.unlink(missing_ok=True)
    if fault is not None:
        raise fault
    for rank, word in enumerate(found):
        if word.startswith("!"):
            raise CheckpointError(f"rank {rank}: {word[1:]}")
    return found


def _marked(root: Path, mark: Path, own: str) -> str:
    """The word in the mark, which is `own` where this rank is the folder's first to come."""
    draft = root / f".mark-{own}"
    with explained(f"use {root} for checkpoints"):
        root.mkdir(parents=True, exist_ok=True)
        draft.write_text(own)
        try:
            with suppress(FileExistsError):
                os.link(draft, mark)  # at once, and with its content
        finally:
            draft.unlink()
        return mark.read_text()


def leaders_of(folders: Sequence[str]) -> list[int]:
    """The first rank of each folder."""
    return sorted({word: rank for rank, word in reversed(list(enumerate(folders)))}.values())


# By step: the manifest's digest, how many shards it names, and those that are there.
Held = Mapping[str, tuple[str, int, list[str]]]


def agree(root: Path, coordination: Coordination, leaders: Sequence[int], timeout_s: float) -> set[int]:
    """Copies manifests to folders that lack them. The steps that are not whole on all folders together."""
    own = _held(root) if coordination.world.rank in leaders else {}
    held = _exchanged(coordination, "open/steps", own, leaders, timeout_s)
    for step in sorted({step for one in held for step in one}, key=int):
        _spread(root, coordination, step, held, leaders, timeout_s)
    own = _held(root) if coordination.world.rank in leaders else {}
    held = _exchanged(coordination, "open/whole", own, leaders, timeout_s)
    return {int(step) for step in {step for one in held for step in one} if not _whole(step, held)}


def _held(root: Path) -> dict[str, tuple[str, int, list[str]]]:
    held: dict[str, tuple[str, int, list[str]]] = {}
    for step in folder.scan(root).steps:
        if step.manifest is not None and not step.faults:
            files = [shard.file for shard in step.manifest.shards]
            there = [file for file in files if file not in step.missing]
            held[str(step.step)] = (digest(step.manifest), len(files), there)
    return held


def digest(made: Manifest) -> str:
    """The same for all folders' manifests of one save: they name the same shards, and differ in whose copy of a
    replica each folder uses. Tells steps of one number apart that two runs wrote."""
    shards = [(shard.file, shard.bytes, shard.crcs.hex()) for shard in made.shards]
    words = json.dumps([made.step, made.time, made.world, shards])
    return hashlib.sha256(words.encode()).hexdigest()[:32]


def _exchanged(
    coordination: Coordination, key: str, own: Held, leaders: Sequence[int], timeout_s: float
) -> list[Held]:
    words = json.dumps(own).encode()
    found = coordination.exchange(key, words, timeout_s, writers=leaders)
    return [json.loads(text) for text in found]


def _spread(
    root: Path,
    coordination: Coordination,
    step: str,
    held: Sequence[Held],
    leaders: Sequence[int],
    timeout_s: float,
) -> None:
    having = [rank for rank, one in zip(leaders, held, strict=True) if step in one]
    lacking = [rank for rank in leaders if rank not in having]
    if not lacking:
        return
    path = folder.step_path(root, int(step))
    rank = coordination.world.rank
    data = (path / manifest.FILE_NAME).read_bytes() if rank == having[0] else b""
    got = coordination.exchange(f"open/manifest/{step}", data, timeout_s, writers=having[:1], readers=lacking)
    if rank not in lacking:
        return
    with suppress(DamagedError, CheckpointError, OSError):
        made = manifest.decode(got[0])
        if any((path / shard.file).is_file() for shard in made.shards):
            write_durably(path, manifest.FILE_NAME, manifest.encode(_localized(path, made)))


def _localized(path: Path, made: Manifest) -> Manifest:
    """Of another folder's manifest this one's: pieces that are there and not here are replaced by the same bytes
    of the same tensor in a shard that is here."""
    here: dict[tuple[str, str, tuple[int, ...]], tuple[int, int, int]] = {}
    for index, shard in enumerate(made.shards):
        if (path / shard.file).is_file():
            with opened(path, shard.file) as (file, size):
                head = safetensors_header.parse(read_at(file, 0, shard.data_offset), size, what=shard.file)
                for name, entry in head.tensors.items():
                    crc = zlib.crc32(read_at(file, entry.begin, entry.end - entry.begin))
                    here[name, entry.dtype, entry.shape] = (index, entry.begin, crc)

    def found(name: str, dtype: str, piece: Piece) -> Piece:
        index, begin, crc = here.get((name, dtype, piece.box.shape), (-1, 0, -1))
        there = (path / made.shards[piece.shard].file).is_file()
        return piece if there or crc != piece.crc32 else replace(piece, shard=index, offset=begin)

    tensors = {
        name: replace(tensor, pieces=tuple(found(name, tensor.dtype, piece) for piece in tensor.pieces))
        for name, tensor in made.tensors.items()
    }
    return replace(made, tensors=tensors)


def _whole(step: str, held: Sequence[Held]) -> bool:
    """Whether all folders have the same manifest, and one of them each shard."""
    if not all(step in one for one in held) or len({one[step][0] for one in held}) != 1:
        return False
    return len({file for one in held for file in one[step][2]}) == held[0][step][1]
