"""What is not built yet says so."""

from __future__ import annotations

import pytest

from pccl_py import Communicator, Master, NotBuilt


def test_keepers_are_not_built_yet(master: Master) -> None:
    with pytest.raises(NotBuilt, match="in-memory snapshots"):
        Communicator(master.address, role="keeper")
