"""What a state holds besides tensors comes back with its types and bits, or is refused with its path."""

from __future__ import annotations

import enum
import json
import math
import random
import struct
from collections import Counter, OrderedDict, defaultdict, namedtuple
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pccl_py.errors import CheckpointError, DamagedError, StateError
from pccl_py.values import bounded_json, tagged
from tests.unit.checkpoint.steps import CALM

FLOATS = st.floats() | st.binary(min_size=8, max_size=8).map(lambda data: struct.unpack("<d", data)[0])
NUMBERS = st.integers() | st.integers(-(1 << 200), 1 << 200) | FLOATS | st.booleans()
TEXTS = st.text(st.characters(codec=None, exclude_categories=[]), max_size=20)  # lone surrogates too
ARRAYS = st.builds(
    lambda data, dtype: np.frombuffer(data[: len(data) // 16 * 16], dtype).copy(),
    st.binary(max_size=64),
    st.sampled_from(["u1", "<i2", ">i4", "<f2", "<f4", ">f8", "<c8", "<c16", "<u8", "i1"]),
)
LEAVES = (
    st.none()
    | NUMBERS
    | TEXTS
    | st.binary(max_size=20)
    | st.binary(max_size=20).map(bytearray)
    | ARRAYS
    | st.complex_numbers()
    | st.builds(range, st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 9))
    | st.sampled_from(
        [torch.bfloat16, torch.device("cuda:1"), torch.Size([2, 3]), np.float32(1.5), np.bool_(True)]
    )
    | st.builds(slice, st.none() | st.integers(), st.integers(), st.none())
)
KEYS = TEXTS | st.integers() | st.booleans() | st.tuples(st.integers(), TEXTS) | st.binary(max_size=4)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.dictionaries(TEXTS, inner, max_size=4).map(OrderedDict)
        | st.sets(st.integers() | TEXTS, max_size=4)
        | st.frozensets(st.binary(max_size=3), max_size=4)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal with types and bits; NaN equals NaN of the same bits."""
    if isinstance(a, OrderedDict | defaultdict):
        a = dict(a)
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("<d", a) == struct.pack("<d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, np.ndarray):
        native = a.astype(a.dtype.newbyteorder("="))
        return native.dtype == b.dtype and a.shape == b.shape and native.tobytes() == b.tobytes()
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return (
            all(map(same, a.keys(), b.keys())) and len(a) == len(b) and all(map(same, a.values(), b.values()))
        )
    return bool(a == b)


def through_json(value: object) -> Any:
    data = bounded_json.dumps(tagged.encode(value))
    return tagged.decode(bounded_json.loads(data, what="value", bytes_max=1 << 24))


@CALM
@given(VALUES)
def test_every_value_comes_back(value: object) -> None:
    assert same(value, through_json(value))


def test_generators_states_and_what_optimizers_hold_come_back() -> None:
    model = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(model.parameters(), betas=(0.9, 0.99))
    model(torch.ones(1, 3)).sum().backward()
    adam.step()
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 0.1, total_steps=9)
    for value in [
        random.getstate(),
        np.random.get_state(),
        np.random.default_rng(5).bit_generator.state,
        torch.get_rng_state(),
        adam.state_dict(),
        {k: v for k, v in schedule.state_dict().items() if k != "_anneal_func_type"},
        {"$tag": 1, "plain": {"$tensor": "not a tensor"}},
        {1: "a", "1": "b"},
        torch.tensor(2.5, dtype=torch.bfloat16).view(torch.uint16),
        np.array(7.0),
        np.zeros((0, 3), np.float32),
    ]:
        assert same(value, through_json(value))
    for dtype in [torch.bfloat16, torch.float8_e4m3fn, torch.bool, torch.complex64, torch.int64]:
        tensor = torch.arange(6).reshape(2, 3).t().to(dtype)
        back = through_json(tensor)
        assert (
            back.dtype == dtype
            and back.shape == (3, 2)
            and same(tensor.contiguous().view(torch.uint8), back.view(torch.uint8))
        )


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    pass


Point = namedtuple("Point", "x y")
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Colour.RED, "Colour"),
        (Word("a"), "Word"),
        (Point(1, 2), "Point"),
        (Counter("a"), "Counter"),
        (Fraction(1, 2), "Fraction"),
        (Path("a"), "state_dict"),
        (object(), "pickle"),
        (print, "builtin"),
        (CYCLE, "nested"),
        (1 << 70_000, "bits"),
        (np.array(["a"]), "numpy"),
        (np.array([None]), "numpy"),
        (np.zeros(3 << 20), "tensor of the state"),
        (np.longdouble(1), "numpy"),
        (np.datetime64(1, "s"), "numpy"),
        (torch.zeros(2).to_sparse(), "dense"),
        (torch.zeros(2, device="meta"), "dense"),
        (torch.Generator(), "pickle"),
        (torch.zeros(2, dtype=torch.complex128), "dense"),
        (math.sin, "builtin"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_saved_is_refused_with_its_path(value: object, says: str) -> None:
    with pytest.raises(StateError, match=says) as caught:
        tagged.encode({"part": [0, (value,)]}, path=("optimizer",))
    assert str(caught.value).startswith("state['optimizer']['part'][1][0]")


def test_tensors_become_references_by_the_caller_s_names() -> None:
    state = {"w": torch.ones(2), "deep": [np.ones(2), {"b": torch.zeros(1)}], "rng": torch.get_rng_state()}
    asked: list[tuple[Any, ...]] = []

    def name_of(path: tuple[str | int, ...], value: Any) -> str | None:
        asked.append(path)
        return None if path[-1] == "rng" else "/".join(map(str, path))

    tree = tagged.encode(state, path=("model",), tensor=name_of)
    assert asked == [("model", "w"), ("model", "deep", 0), ("model", "deep", 1, "b"), ("model", "rng")]
    back = tagged.decode(json.loads(json.dumps(tree)), tensor=lambda name: name.upper())
    assert back["w"] == "MODEL/W" and back["deep"] == ["MODEL/DEEP/0", {"b": "MODEL/DEEP/1/B"}]
    assert torch.equal(back["rng"], state["rng"])
    with pytest.raises(DamagedError, match="where no tensor may be"):
        tagged.decode(tree)
    assert tagged.encode([tagged.Reference("a")]) == [{"$tensor": "a"}]
    with pytest.raises(StateError, match="no name for a tensor"):
        tagged.encode(state, tensor=lambda path, value: "a\nb")


@pytest.mark.parametrize(
    "value",
    [
        {"$unknown": 1},
        {"$tuple": 3},
        {"$tuple": [], "b": 1},
        {"$int": "zz"},
        {"$int": "f" * 20_000},
        {"$int": 5},
        {"$float": "1.0"},
        {"$float": ["nan"]},
        {"$bytes": "a"},
        {"$bytes": "a\u00e4=="},
        {"$set": [[]]},
        {"$set": [1, 1]},
        {"$dict": [[1, 2], [1, 3]]},
        {"$dict": [1]},
        {"$dict": [[[], 1]]},
        {"$slice": [1]},
        {"$range": [1, 2, 0]},
        {"$range": [1, 2, "3"]},
        {"$complex": [1, 2]},
        {"$scalar": ["|O8", "AAAAAAAAAAA="]},
        {"$array": ["<f4", [2], "AAAA"]},
        {"$array": ["<f4", [-1], ""]},
        {"$array": ["<f4", [1 << 62, 0, 1 << 62], ""]},
        {"$array": ["<f4", [0] * 99, ""]},
        {"$inline": ["F32", [1], ""]},
        {"$inline": ["X", [], ""]},
        {"$dtype": "load"},
        {"$dtype": "__class__"},
        {"$device": "no such device"},
        {"$device": "qwe:1"},
        {"$size": [-1]},
        {"$size": ["a"]},
        {"$tensor": 1},
        {"$tensor": "../\0"},
        {"$numpy_dtype": "O"},
        {"$str": "////"},
    ],
)
def test_a_hostile_value_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError):
        tagged.decode(value, tensor=str)


def test_a_deep_value_is_refused_on_both_ways() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    assert same(deep, through_json(deep))
    deeper: Any = 1
    for _ in range(100_000):
        deeper = {"$tuple": [deeper]}
    with pytest.raises(CheckpointError, match="deep"):
        tagged.decode(deeper)
    with pytest.raises(StateError, match="nested"):
        tagged.encode(deeper)
    while isinstance(deeper, dict):  # or the interpreter frees it recursively
        deeper = deeper["$tuple"][0]


TAGS = (
    "tuple set frozenset dict slice range int float complex str bytes bytearray scalar array numpy_dtype "
    "inline dtype device size tensor"
).split()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=3) | st.sampled_from([f"${tag}" for tag in TAGS]),
            inner | st.sampled_from(["<f4", "F32", "AAAA", "nan"]),
            max_size=2,
        )
    ),
    max_leaves=10,
)


@CALM
@given(JSON)
def test_any_json_decodes_or_is_refused(value: Any) -> None:
    try:
        tagged.decode(value, tensor=lambda name: name)
    except CheckpointError:
        pass
