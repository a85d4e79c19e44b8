"""One tree of errors, which the core's codes map to."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path

import pytest

import pccl_py
from pccl_py import errors
from pccl_py.errors import PcclError, from_code

ROOT = Path(__file__).resolve().parents[2]
CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, PcclError)]


def codes_of_the_core() -> dict[str, int]:
    text = (ROOT / "csrc" / "base" / "result.hpp").read_text()
    body = re.search(r"enum class ErrorCode[^{]*\{(.*?)\};", text, re.S)
    assert body is not None
    return {name: int(number) for name, number in re.findall(r"(\w+) = (\d+),", body[1])}


def test_every_code_of_the_core_has_its_exception() -> None:
    codes = codes_of_the_core()
    assert codes.pop("none") == 0
    for name, code in codes.items():
        kind = type(from_code(code, "text"))
        words = {"usage": "UsageError", "timeout": "OperationTimeout", "no_quorum": "NoQuorumError"}
        camel = "".join(word.capitalize() for word in name.split("_"))
        assert kind.__name__ in (words.get(name), camel, f"{camel}Error"), name
        assert str(from_code(code, "peer 3 says why")) == "peer 3 says why"


def test_an_unknown_code_is_reported_not_hidden() -> None:
    error = from_code(99, "something new")
    assert type(error) is errors.InternalError
    assert "99" in str(error) and "something new" in str(error)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_says_what_to_do_and_is_public(kind: type[PcclError]) -> None:
    assert kind.__doc__
    assert getattr(pccl_py, kind.__name__) is kind
    assert re.search(rf"^ *{kind.__name__}\b", errors.__doc__ or "", re.M), "not in the module's tree"
    copy = pickle.loads(pickle.dumps(kind("text")))
    assert type(copy) is kind and str(copy) == "text"


def test_the_documented_tree_is_the_real_one() -> None:
    parents: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"( *)([A-Z]\w+)(  |$)", line):
            depth = len(match[1]) // 2
            parents[depth] = match[2]
            if depth:
                assert getattr(errors, match[2]).__mro__[1].__name__ == parents[depth - 1]


def test_python_s_own_kinds() -> None:
    assert issubclass(errors.UsageError, ValueError)
    assert issubclass(errors.NotBuilt, NotImplementedError)
    assert issubclass(errors.OperationTimeout, TimeoutError)
    assert issubclass(errors.PeerLost, errors.CollectiveError)
    assert not issubclass(errors.Evicted, errors.CollectiveError)
