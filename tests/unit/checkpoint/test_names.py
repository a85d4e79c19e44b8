"""Paths in the state as names of tensors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pccl_py.errors import StateError
from pccl_py.values import names
from tests.unit.checkpoint.steps import CALM

PARTS = st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20), min_size=1)


@CALM
@given(PARTS)
def test_a_path_comes_back(path: list[str]) -> None:
    if path == [""] or path == ["__metadata__"]:
        with pytest.raises(StateError):
            names.join(path)
        return
    assert names.split(names.join(path)) == tuple(path)


def test_escapes_are_as_documented() -> None:
    assert names.join(("model", "a/b", 3, "c~d")) == "model/a~1b/3/c~0d"
    assert names.split("model/a~1b/3/~01") == ("model", "a/b", "3", "~1")
    assert names.in_shard("a/b", 0, 1) == "a/b" and names.in_shard("a/b", 1, 2) == "a/b~p1"


@pytest.mark.parametrize(
    "part",
    [
        "",
        "__metadata__",
        "a\nb",
        "nul\0",
        "\x1b[31m",
        "c\x85",
        "\udc80",
        "line\u2028",
        "x" * 4097,
        "ä" * 2049,
    ],
)
def test_a_name_that_a_file_cannot_have_is_refused(part: str) -> None:
    assert names.fault(part)
    with pytest.raises(StateError, match="[Nn]o tensor can be saved under"):
        names.join((part,))


def test_a_bad_escape_is_refused() -> None:
    for name in ["a~", "a~2", "a~p1"]:
        with pytest.raises(StateError, match="escapes"):
            names.split(name)


def test_a_message_shows_nothing_that_a_terminal_acts_on() -> None:
    shown = names.shown("a\x1b[2J\u202eb\udc80'" + "z" * 500)
    assert shown.isprintable() and shown.isascii() and len(shown) < 260
    assert names.path_shown(("model", 3, "3")) == "state['model'][3]['3']"
