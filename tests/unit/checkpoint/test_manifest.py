"""What makes a step exist: exact round trips, and nothing else is ever taken for one."""

from __future__ import annotations

import hashlib
import json
import random
import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pccl_py.checkpoint import manifest, manifest_body
from pccl_py.checkpoint.boxes import Box
from pccl_py.checkpoint.manifest import Piece, Tensor, decode, encode
from pccl_py.errors import CheckpointError, DamagedError, StateError
from pccl_py.values import bounded_json
from tests.unit.checkpoint.steps import CALM, body, manifests, small


def sealed(body: bytes, version: int = 1) -> bytes:
    digest = hashlib.sha256(body).hexdigest()
    return b'{"format":"pccl-checkpoint","version":%d,"sha256":"%b","body":\n%b\n}\n' % (
        version,
        digest.encode(),
        body,
    )


@CALM
@given(manifests())
def test_a_manifest_comes_back(made: manifest.Manifest) -> None:
    data = encode(made)
    assert decode(data) == made
    assert encode(decode(data)) == data
    assert json.loads(data)["format"] == "pccl-checkpoint"


def test_it_is_one_json_document_with_the_documented_first_line() -> None:
    data = encode(small())
    first, rest = data.split(b"\n", 1)
    assert re.fullmatch(rb'\{"format":"pccl-checkpoint","version":1,"sha256":"[0-9a-f]{64}","body":', first)
    document = json.loads(data)
    assert document["sha256"] == hashlib.sha256(rest[: -len(b"\n}\n")]).hexdigest()
    assert document["body"] == body()
    assert document["body"]["shards"][0]["crc32"] == "0000000100000002"
    assert small().shards[0].crc(1) == 2


def test_every_flipped_bit_every_cut_and_every_addition_is_refused() -> None:
    data = encode(small())
    for position in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(DamagedError):
                decode(bytes(damaged))
    for end in range(len(data)):
        with pytest.raises(DamagedError):
            decode(data[:end])
    for more in (b"\n", b" ", b"\0", data):
        with pytest.raises(DamagedError):
            decode(data + more)
        with pytest.raises(DamagedError):
            decode(more + data)


@given(manifests(), st.randoms(use_true_random=False))
@settings(CALM, max_examples=50)
def test_a_flipped_bit_of_any_manifest_is_refused(made: manifest.Manifest, rng: random.Random) -> None:
    damaged = bytearray(encode(made))
    damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    with pytest.raises(DamagedError):
        decode(bytes(damaged))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


ODD = [
    None,
    True,
    -1,
    0,
    1,
    5,
    1.5,
    1 << 62,
    1 << 63,
    1 << 64,
    10**4000,
    "",
    "../x",
    "a\0b",
    "shard",
    "F32",
    "U8",
    [],
    {},
    [0],
    [-1],
    [0, 0],
    [1 << 62, 1 << 62],
    {"a": 1},
    "00000000",
    "F" * 8,
    "\ud800",
    [[]] * 3,
    {"$tensor": "nobody"},
]


@given(
    st.lists(
        st.tuples(st.integers(0, 10**6), st.sampled_from([*ODD, "drop", "copy"])), min_size=1, max_size=3
    )
)
@settings(CALM, max_examples=400)
def test_a_mutated_body_is_refused_or_a_manifest(mutations: list[tuple[int, Any]]) -> None:
    value: Any = body()
    for number, odd in mutations:
        all_places = places(value)
        path = all_places[number % len(all_places)]
        if not path:
            continue
        parent = at(value, path[:-1])
        if odd == "drop":
            del parent[path[-1]]
        elif odd == "copy" and isinstance(parent, list):
            parent.append(deepcopy(parent[path[-1]]))
        elif odd == "copy":
            parent[f"{path[-1]}x"] = deepcopy(parent[path[-1]])
        else:
            parent[path[-1]] = deepcopy(odd)
    try:
        made = decode(sealed(json.dumps(value).encode()))
    except CheckpointError:
        return
    assert decode(encode(made)) == made
    for tensor in made.tensors.values():
        assert all(0 <= piece.shard < len(made.shards) for piece in tensor.pieces)


@CALM
@given(st.binary(max_size=300))
def test_any_bytes_in_a_sealed_body_are_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode(sealed(data))
    with pytest.raises(DamagedError):
        decode(data)


def changed(path: tuple[Any, ...], value: Any) -> Any:
    made = body()
    at(made, path[:-1])[path[-1]] = value
    return made


PIECE = ("tensors", "w", "pieces", 0)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("shards", 0, "file"), "../shard-00000-of-00002.safetensors", "may not be called"),
        (("shards", 0, "file"), "/etc/passwd", "may not be called"),
        (("shards", 0, "file"), "a\0.safetensors", "may not be called"),
        (("shards", 0, "file"), "manifest.json", "may not be called"),
        (("shards", 0, "file"), ".safetensors", "may not be called"),
        (("shards", 0, "file"), "shard-00001-of-00002.safetensors", "same file"),
        (("shards", 0, "bytes"), -1, "integer"),
        (("shards", 0, "bytes"), 4108.0, "integer"),
        (("shards", 0, "bytes"), True, "integer"),
        (("shards", 0, "bytes"), 1 << 62, "one checksum for each"),
        (("shards", 0, "crc32"), "0000000g00000002", "one checksum for each"),
        (("shards", 0, "crc32"), "٠" * 16, "one checksum for each"),
        (("shards", 0, "data_offset"), 9999, "data_offset"),
        ((*PIECE, "offset"), 4095, "outside of the data"),
        ((*PIECE, "offset"), 4097, "outside of the data"),
        ((*PIECE, "offset"), -1, "integer"),
        ((*PIECE, "shard"), 2, "integer"),
        ((*PIECE, "shard"), -1, "integer"),
        ((*PIECE, "shard"), 1, "share bytes"),
        ((*PIECE, "start"), [1, 0], "overlap, or do not cover"),
        ((*PIECE, "start"), [2, 0], "outside of the tensor"),
        ((*PIECE, "start"), [0], "outside of the tensor"),
        ((*PIECE, "shape"), [1, 2], "overlap, or do not cover"),
        ((*PIECE, "crc32"), "123", "no checksum"),
        (("tensors", "w", "dtype"), "F4", "dtype"),
        (("tensors", "w", "shape"), [1] * 33, "longer than 32"),
        (("tensors", "w", "pieces"), [], "do not cover"),
        (("tensors", "__metadata__"), {"dtype": "U8", "shape": [0], "pieces": []}, "keeps it for itself"),
        (("tensors", "a\nb"), {"dtype": "U8", "shape": [0], "pieces": []}, "control character"),
        (("tensors", "a\0"), {"dtype": "U8", "shape": [0], "pieces": []}, "control character"),
        (("tensors", "\udcff"), {"dtype": "U8", "shape": [0], "pieces": []}, "surrogate"),
        (("tensors", "n" * 5000), {"dtype": "U8", "shape": [0], "pieces": []}, "longer than 4096"),
        (("private", "2"), {}, "no rank"),
        (("private", "01"), {}, "no rank"),
        (("private", "-1"), {}, "longer|more than|no rank"),
        (("notes", "a"), 1, "no text"),
        (("block_bytes",), 4095, "integer"),
        (("block_bytes",), 1 << 40, "integer"),
        (("world",), 0, "integer"),
        (("step",), 10**12, "integer"),
        (("time",), -1, "seconds"),
        (("time",), 10**400, "seconds"),
        (("more",), 1, "exactly"),
        (("objects",), [], "objects"),
    ],
)
def test_a_hostile_body_is_refused(path: tuple[Any, ...], value: Any, says: str) -> None:
    with pytest.raises(DamagedError, match=says) as caught:
        decode(sealed(json.dumps(changed(path, value)).encode()), what="step 7")
    assert str(caught.value).startswith("step 7: ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"step":NaN}', "NaN"),
        (b'{"time":1e999}', "double"),
        (b'{"time":-Infinity}', "Infinity"),
        (b'{"step":1,"step":1}', "twice"),
        (b"[" * 100_000 + b"]" * 100_000, "deeper"),
        (b'{"a":' * 65, "deeper"),
        (b'"' + b"[" * 200 + b'"', "exactly"),
        (b"\xff\xfe[\0]\0", "UTF-8"),
        (b"\xef\xbb\xbf{}", "JSON"),
        (b"9" * 5000, "JSON"),
        (b'"\\ud800"', "surrogate"),
        (b'{"a":["\\udc00x"]}', "surrogate"),
        (b"", "JSON"),
        (b'"a\nb"', "JSON"),
        (b"{}{}", "JSON"),
        (b"[1,]", "JSON"),
        (b'"\\ud83d\\ude00"', "exactly"),
    ],
)
def test_what_is_no_json_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(DamagedError, match=says):
        decode(sealed(text))


def test_another_version_is_named() -> None:
    with pytest.raises(DamagedError, match="version 2 .* release that wrote it"):
        decode(sealed(b"{}", version=2))


def test_size_is_refused_before_anything_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MANIFEST_BYTES_MAX", 1000)
    with pytest.raises(DamagedError, match="at most 1000"):
        decode(sealed(b"[" * 1000))
    with pytest.raises(DamagedError, match="at most 10"):
        bounded_json.loads(b"[" * 11, what="x", bytes_max=10)


def test_depth_is_counted_outside_of_strings() -> None:
    assert bounded_json.depth(rb'[{"a\"[[[":[1,"]"]},[[]]]') == 3
    assert bounded_json.depth(b"") == 0
    assert bounded_json.depth(b"]]]][") == 0  # no parser gets there


def test_a_wrong_manifest_cannot_be_written() -> None:
    overlapping = Tensor("F32", (2, 3), (Piece(0, 4096, Box((0, 0), (2, 3)), 1),))
    with pytest.raises(StateError, match="no reader"):
        encode(replace(small(), tensors={"w": overlapping}))
    with pytest.raises(StateError, match="cannot be written"):
        encode(replace(small(), objects={"a": float("nan")}))
    with pytest.raises(StateError, match="cannot be written"):
        encode(replace(small(), notes={"a": "\ud800"}))


def test_names_of_shard_files() -> None:
    assert manifest_body.shard_file(3, 8) == "shard-00003-of-00008.safetensors"
    assert manifest_body.is_shard_file("shard-00003-of-00008.safetensors")
    for name in [
        "",
        ".",
        "..",
        "a/b.safetensors",
        "-a.safetensors",
        "a.part",
        "a.safetensors\n",
        "a..safetensors",
    ]:
        assert not manifest_body.is_shard_file(name)


def test_too_deep_a_manifest_cannot_be_written() -> None:
    deep: Any = 1
    for _ in range(70):
        deep = [deep]
    with pytest.raises(StateError, match="too deep"):
        encode(replace(small(), objects={"a": deep}))
