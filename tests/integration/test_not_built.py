"""What is not built yet says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Master, NotBuilt


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"algorithm": "two_level"}, "algorithm='two_level' waits for plans within and between sites"),
    ],
)
def test_not_built_yet(master: Master, arguments: Any, text: str) -> None:
    with Communicator(master.address) as comm, pytest.raises(NotBuilt, match=text):
        comm.all_reduce(np.ones(3), **arguments)


def test_keepers_are_not_built_yet(master: Master) -> None:
    with pytest.raises(NotBuilt, match="in-memory snapshots"):
        Communicator(master.address, role="keeper")


def test_state_dir_is_not_built_yet() -> None:
    with pytest.raises(NotBuilt, match="survive a restart"):
        Master(state_dir="/tmp")
