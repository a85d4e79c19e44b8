"""Each decoder as a function of any bytes. It returns, or raises what the decoder documents; anything else,
and a value that is not encoded as the bytes that it was decoded from, is a fault."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from pccl_py.checkpoint import (
    dcp_metadata,
    folder_coordination,
    lease,
    manifest,
    rank_record,
    remote_format,
    safetensors_header,
    upload_journal,
)
from pccl_py.checkpoint.boxes import Box
from pccl_py.checkpoint.manifest import Manifest, Piece, Shard, Tensor
from pccl_py.checkpoint.rank_record import RankRecord
from pccl_py.distributed import objects
from pccl_py.errors import DamagedError, ProtocolError, StateError, VersionError
from pccl_py.master import dashboard, etcd_answers, etcd_gateway
from pccl_py.observe import trace_format
from pccl_py.snapshot import channel, generation, identical, messages, standing, table
from pccl_py.snapshot import limits as snapshot_limits
from pccl_py.values import bounded_json, tagged_decode, tagged_encode

BYTES_MAX = 1 << 20


class Target(NamedTuple):
    """`seeds`: valid inputs. `raises`: what the decoder may raise."""

    run: Callable[[bytes], None]
    raises: tuple[type[Exception], ...]
    seeds: list[bytes]


def same(one: object, other: object) -> None:
    if one != other:
        raise AssertionError(f"{one!r:.300} is not {other!r:.300}")


# ---- checkpoints ----

_BOX = Box((0, 0), (2, 3))
_TENSOR = Tensor("F32", (2, 3), (Piece(0, 4096, _BOX, 7),))
_SHARD = Shard("shard-00000-of-00001.safetensors", 4120, 4096, b"\1\0\0\0\2\0\0\0")
_OBJECTS = {"x": {"a": [1, 2.5, None, True, "text"], "step": 3}}
_MANIFEST = Manifest(
    5, 1.5, 1, 4096, (_SHARD,), {"x/w": _TENSOR}, _OBJECTS, {0: {"rng": {"s": 1}}}, {"n": "t"}
)
_PROGRESS = upload_journal.Progress("u", 3, "s", {"a": 5}, "b", "m", ["t"], 10, 8, [(4, 1, 2)])
_RECORD = RankRecord(0, _SHARD, {"x/w": _TENSOR}, _OBJECTS, {"rng": {"s": 1}})


def _manifest(data: bytes) -> None:
    same(manifest.encode(manifest.decode(data)), data)


def _manifest_body(data: bytes) -> None:
    """As it stands in a manifest whose digest is right."""
    digest = hashlib.sha256(data).hexdigest().encode()
    sealed = b'{"format":"pccl-checkpoint","version":1,"sha256":"%b","body":\n%b\n}\n' % (digest, data)
    found = manifest.decode(sealed)
    with suppress(StateError):  # another spelling of the same numbers may be too long
        same(manifest.decode(manifest.encode(found)), found)


def _record(data: bytes) -> None:
    found = rank_record.decode_record(data, 4096)
    same(rank_record.decode_record(rank_record.encode_record(found), 4096), found)


def _table(data: bytes) -> None:
    found = table.decode(data, "it")
    same(table.decode(table.encode(found), "it"), found)
    assert found.crcs is not None


def _safetensors(data: bytes) -> None:
    """The size of the file's data (4), then the header."""
    text = data[4:]
    size = 8 + len(text) + struct.unpack("<I", data[:4].ljust(4, b"\0"))[0]
    found = safetensors_header.parse(struct.pack("<Q", len(text)) + text, size)
    assert all(8 <= entry.begin <= entry.end <= size for entry in found.tensors.values())


def _shard_end(data: bytes) -> None:
    """Sizes of file and object (4 each), then index and trailer, whose checksum is set here."""
    raw, stored = struct.unpack("<II", data[:8].ljust(8, b"\0"))
    end = data[8:-4]
    end += struct.pack("<I", zlib.crc32(end))
    more = remote_format.index_bytes(end[-remote_format.TRAILER.size :], raw, stored, "it")
    assert more <= stored
    index = remote_format.decode_end(end, raw, stored, "it")
    same(remote_format.encode_end(index), end)


def _shard_frame(data: bytes) -> None:
    """Coding, width (1 each), size (4), frame."""
    coding, width, raw = struct.unpack("<BBI", data[:6].ljust(6, b"\0"))
    if coding > 1 or width not in (1, 2, 4, 8) or raw > BYTES_MAX:
        return
    frame = remote_format.Frame(len(data[6:]), coding, width)
    if coding == remote_format.RAW and raw != frame.stored:
        return  # the index says so
    same(len(remote_format.decode_frame(data[6:], frame, raw, "it")), raw)


def _frame_seed() -> bytes:
    frame, packed = remote_format.encode_frame(bytes(range(64)) * 40, 4)
    return struct.pack("<BBI", frame.coding, frame.width, 2560) + packed


def _end_seed() -> bytes:
    index = remote_format.Index(remote_format.FRAME_BYTES_MIN, 1000, (remote_format.Frame(900, 1, 4),))
    end = remote_format.encode_end(index)
    return struct.pack("<II", 1000, 900 + len(end)) + end


def _tagged(data: bytes) -> None:
    value = bounded_json.loads(data, what="it", bytes_max=BYTES_MAX)
    tagged_decode.decode(value, tensor=lambda name: name)


def _tagged_seeds() -> list[bytes]:
    values: list[Any] = [{"a": (1, 2.5, {3, 4}), 5: b"raw"}, [1 << 200, -0.0, float("inf"), None], {"b": {}}]
    return [bounded_json.dumps(tagged_encode.encode(value)) for value in values]


def _json(data: bytes) -> None:
    value = bounded_json.loads(data, what="it", bytes_max=BYTES_MAX, depth_max=8)
    same(bounded_json.loads(bounded_json.dumps(value), what="it", bytes_max=8 * BYTES_MAX), value)


def _dcp(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / dcp_metadata.FILE_NAME).write_bytes(data)
        dcp_metadata.read_index(Path(folder))


def _lease(data: bytes) -> None:
    run, who = lease._said(data)
    assert isinstance(run, str) and isinstance(who, str)


def _journal(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / ".upload-00000.json").write_bytes(data)
        found = upload_journal.Journal(Path(folder), 0, 1).read("u", 3, "s")
        assert (found.url, found.step, found.seal) == ("u", 3, "s") and found.raw >= 0


def _hello(data: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "hello-00000").write_bytes(data)
        board = object.__new__(folder_coordination.FolderCoordination)
        board._root = Path(folder)
        word, known = board._hello(0)
        assert isinstance(word, str) and isinstance(known, list)


# ---- snapshots, objects, etcd ----


def _keeper(data: bytes) -> None:
    found = messages.decode(data)
    same(messages.decode(messages.encode(found)), found)


def _greeting(data: bytes) -> None:
    channel.check_greeting(data, "it")
    same(int(data.split()[1]), snapshot_limits.PROTOCOL)


def _standing(data: bytes) -> None:
    found = standing.decode(data)
    same(standing.decode(found.encode()), found)
    assert all(held.lane.trainer == held.trainer for held in found.held)


def _generation(data: bytes) -> None:
    """And what every keeper asks it, before it codes anything."""
    found = generation.decode(data)
    same(generation.decode(found.encode()), found)
    assert 0 <= found.losses() <= generation.KEEPERS_MAX
    for number, group in enumerate(found.groups):
        k, m = found.code(number)
        assert k >= 1 and m >= 0 and k + m == len(group.shares)
        assert len(found.parity_rows(number, 0)) == m
    for keeper in found.keepers:
        at = found.share_of(keeper)
        assert at is not None and at[2].keeper == keeper
    assert all(found.width(lane) % generation.WIDTH_UNIT == 0 for lane in range(found.lanes))
    for lane in range(found.lanes):
        ends = [end for area in found.areas(lane) for end in (area.first, area.last)]
        assert ends == sorted(ends) and found.identical_bytes(lane) >= 0
    assert len(found.places()) == sum(len(one.lanes) for group in found.groups for one in group.shares)


def _checksums(data: bytes) -> None:
    """Of two lanes; then which of their blocks may be the same."""
    lanes = (replace(_HELD.lane, bytes=(1 << 20) + 1), replace(_HELD.lane, trainer="u"))
    found = identical.checksums(lanes, data)
    assert [one.bytes for one in found] == [(1 << 20) + 1, 100]
    assert len(identical.candidates([found[0], found[0]])) == (0 if found[0].crcs is None else 2)
    assert len(identical.candidates(found)) == 0


# ---- what a browser may say ----


class _Caller:
    """The socket of one that has said all it will."""

    def __init__(self, said: bytes) -> None:
        self._said, self.heard = said, b""

    def makefile(self, mode: str, buffering: int) -> BytesIO:
        return BytesIO(self._said)

    def sendall(self, data: bytes | memoryview) -> None:
        self.heard += bytes(data)

    def settimeout(self, seconds: float) -> None:
        pass

    def setsockopt(self, *option: int) -> None:
        pass


class _Page:
    """In place of the server. Who gets an answer has asked a local name."""

    check_host = True

    def report(self) -> dict[str, Any]:
        return {"runs": {}, "events": []}


def _dashboard(data: bytes) -> None:
    caller = _Caller(data)
    dashboard._Request(caller, ("127.0.0.1", 1), _Page())  # type: ignore[arg-type]
    given = caller.heard
    assert b"Traceback" not in given and len(given) < 1 << 20
    if b" 200 OK\r\n" in given:
        text = data.lower()
        assert any(name in text for name in (b"localhost", b"127.", b"::1", b"0:0:0:0:0:0:0:1")), given[:200]
        assert b"get" in text or b"head" in text


def _trace(data: bytes) -> None:
    trace_format.decode(data)


def _objects(data: bytes) -> None:
    objects.decode(data)


def _etcd(data: bytes) -> None:
    _, content = etcd_gateway.parse(data)
    answer = etcd_answers.as_object(bounded_json.loads(content, what="it", bytes_max=BYTES_MAX, depth_max=16))
    for read in (
        etcd_answers.cluster_of, etcd_answers.key_values, etcd_answers.transaction, etcd_answers.granted,
        etcd_answers.kept_alive,
    ):  # fmt: skip
        with suppress(DamagedError):
            read(answer)


_ANSWER = (
    b'{"header":{"cluster_id":"148","revision":"7"},"succeeded":true,"ID":"9","TTL":"60","result":{"TTL":"5"},'
    b'"responses":[{"response_range":{"kvs":[{"key":"cC9t","value":"bWU=","create_revision":"3"}]}}]}'
)
_SLOT = messages.Slot("complete", 4096, 3, 100, 50, 7)
_TRAINER = messages.Trainer("t", 5, 0.5, 3, 1.0, 100, 8192)
_MESSAGES = [
    messages.Attach("t", 4096, 1024, 30.0, _SLOT),
    messages.Attached(1, (_SLOT, _SLOT)),
    messages.Complete(0, 3, 100, 7),
    messages.Summary("run", "keeper", 5, (_TRAINER,)),
    messages.Refused("memory", "why", 5, 4),
    messages.Protect("host:1", "key", True, False, "run", "", "", "rack 7", 2, 1000),
    messages.Coded(5, 2, "why", 4096, 100, 50),
]
_HELD = standing.Held("t", 5, 100, 50, 7, True, 9)
_WORDS = (standing.Word("t"),)
_STANDING = standing.Standing("k", "rack 7", 2, (_HELD,), _WORDS, _WORDS, _WORDS, 4, 4, False)
_SHARES = [generation.Share(f"k{at}", f"d{at}", (replace(_HELD.lane, trainer=f"t{at}"),)) for at in range(3)]
_GENERATION = replace(
    generation.arranged(4, 1, _SHARES, (generation.Missed("t9", "why"),)),
    identical=(generation.Identical((generation.Range(0, 64),)),),
)
_ASKED = [
    b"GET / HTTP/1.1\r\nHost: localhost:48149\r\n\r\n",
    b"GET /status.json?x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    b"HEAD /metrics HTTP/1.0\r\nHost: [::1]:80\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nxx",
]
_DUMP = trace_format.HEADER.pack(
    trace_format.MAGIC, 192, 64, 4096, 2, 10**18, 1, 2, 3, b"host", b"island"
) + b"".join(
    trace_format.ENTRY.pack(n, 10**9 * n, kind, 1, 1, 0, 1, 2, 0, 0, 2, 0, 64, 1)
    for n, kind in ((1, 1), (2, 9))
)
_HEADER = b'{"__metadata__":{"a":"b"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'

TARGETS: dict[str, Target] = {
    "manifest": Target(_manifest, (DamagedError,), [manifest.encode(_MANIFEST)]),
    "manifest_body": Target(
        _manifest_body, (DamagedError,), [manifest.encode(_MANIFEST).split(b"\n", 1)[1][: -len(b"\n}\n")]]
    ),
    "rank_record": Target(_record, (DamagedError,), [rank_record.encode_record(_RECORD)]),
    "snapshot_table": Target(_table, (DamagedError,), [table.encode(table.Table(1, 4096, _RECORD))]),
    "safetensors": Target(_safetensors, (DamagedError,), [struct.pack("<I", 24) + _HEADER]),
    "shard_end": Target(_shard_end, (DamagedError,), [_end_seed()]),
    "shard_frame": Target(_shard_frame, (DamagedError,), [_frame_seed()]),
    "tagged": Target(_tagged, (DamagedError,), _tagged_seeds()),
    "json": Target(_json, (DamagedError,), [b'{"a":[1,-2.5e3,null,true,"\\u00e9"],"":{}}']),
    "dcp_index": Target(_dcp, (DamagedError,), [pickle.dumps({"a": (1, [2.0], b"c")}, 2)]),
    "lease": Target(_lease, (), [b'{"run":"r","pid":5,"host":"h"}']),
    "hello": Target(_hello, (), [b'["a",["a","b"]]', b'["a",5]']),
    "journal": Target(_journal, (), [json.dumps(asdict(_PROGRESS)).encode()]),
    "keeper": Target(_keeper, (ProtocolError,), [messages.encode(message) for message in _MESSAGES]),
    "standing": Target(_standing, (ProtocolError,), [_STANDING.encode()]),
    "generation": Target(_generation, (ProtocolError,), [_GENERATION.encode()]),
    "checksums": Target(_checksums, (ProtocolError,), [b"\1" + bytes(13)]),
    "trace": Target(_trace, (trace_format.TraceError,), [_DUMP]),
    "dashboard": Target(_dashboard, (), _ASKED),
    "greeting": Target(_greeting, (ProtocolError, VersionError), [channel.greeting()]),
    "objects": Target(
        _objects, (ProtocolError,), [objects.encode({"a": [1, 2.5, "x", b"y", (None, True)], 5: -7})]
    ),
    "etcd": Target(
        _etcd,
        (DamagedError, HTTPException),
        [b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)],
    ),
}
