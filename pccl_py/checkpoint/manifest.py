"""The manifest of a step: what it holds, where, and the checksums. Written last, it makes the step exist.

`encode` and `decode` are exact inverses; `decode` takes any bytes and raises DamagedError for all that
`encode` does not write. The format is documented in `format.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import DamagedError, StateError
from ..values import bounded_json
from ..values.bounded_json import Json
from ..values.limits import JSON_DEPTH_MAX, MANIFEST_BYTES_MAX
from .boxes import Box

VERSION = 1
FILE_NAME = "manifest.json"
_HEAD = re.compile(
    rb'\{"format":"pccl-checkpoint","version":(0|[1-9][0-9]{0,8}),"sha256":"([0-9a-f]{64})","body":\n'
)
_HEAD_BYTES_MAX = 256
_TAIL = b"\n}\n"
_Words = bytes  # since a field is called so, too


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard file: its name in the step's folder, its size, where its data begin, and the CRC-32 of each
    block (the bytes from i * block_bytes), as little-endian 32-bit words."""

    file: str
    bytes: int
    data_offset: int
    crcs: _Words

    def crc(self, block: int) -> int:
        return int.from_bytes(self.crcs[4 * block : 4 * block + 4], "little")


@dataclass(frozen=True, slots=True)
class Piece:
    """A box of a tensor, dense in a shard file from byte `offset`; `crc32` is that of its bytes."""

    shard: int
    offset: int
    box: Box
    crc32: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A global tensor, by its dtype's name in safetensors; its pieces are disjoint and cover it."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    step: int
    time: float  # seconds since 1970
    world: int  # ranks that wrote it
    block_bytes: int
    shards: tuple[Shard, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    objects: Mapping[str, Json] = field(default_factory=dict)  # by part of the state: tagged JSON
    private: Mapping[int, Mapping[str, Json]] = field(default_factory=dict)  # by rank, by part
    notes: Mapping[str, str] = field(default_factory=dict)


def encode(manifest: Manifest) -> bytes:
    """The bytes of manifest.json. Raises StateError for what the format cannot hold."""
    from . import manifest_body  # it imports the classes above

    what = f"the manifest of step {manifest.step}"
    try:
        value = manifest_body.write(manifest)
        manifest_body.read(value, what)  # as every reader will
        body = bounded_json.dumps(value)
    except DamagedError as error:
        raise StateError(f"no reader would take {error}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise StateError(f"{what} cannot be written: {error}") from None
    data = b"%b%b%b" % (_head(hashlib.sha256(body).hexdigest()), body, _TAIL)
    if len(data) > MANIFEST_BYTES_MAX or bounded_json.depth(body) > JSON_DEPTH_MAX:
        raise StateError(f"{what} is too long or too deep: {len(data)} bytes; save fewer or larger values")
    return data


def decode(data: bytes, *, what: str = FILE_NAME) -> Manifest:
    """The manifest. Raises DamagedError, beginning with `what`, for all that is not one, whole and sound."""
    from . import manifest_body

    return manifest_body.read(
        bounded_json.loads(_body(data, what), what=what, bytes_max=MANIFEST_BYTES_MAX), what
    )


def _head(digest: str) -> bytes:
    return f'{{"format":"pccl-checkpoint","version":{VERSION},"sha256":"{digest}","body":\n'.encode()


def _body(data: bytes, what: str) -> bytes:
    if len(data) > MANIFEST_BYTES_MAX:
        raise DamagedError(f"{what}: {len(data)} bytes where at most {MANIFEST_BYTES_MAX} are read")
    head = _HEAD.match(data[:_HEAD_BYTES_MAX])
    if head is None:
        raise DamagedError(
            f"{what}: its first line is not that of a manifest; it is damaged, or something else"
        )
    if int(head[1]) != VERSION:
        raise DamagedError(
            f"{what}: version {int(head[1])} of the format, and this release reads {VERSION}: read it with "
            "the release that wrote it"
        )
    body = data[head.end() : -len(_TAIL)]
    if data[-len(_TAIL) :] != _TAIL or hashlib.sha256(body).hexdigest().encode() != head[2]:
        raise DamagedError(f"{what}: its checksum differs: it is damaged or cut off; take another step")
    return body
