"""What is not built yet says so."""

from __future__ import annotations

import pytest

from pccl_py import Master, NotBuilt


def test_state_dir_is_not_built_yet() -> None:
    with pytest.raises(NotBuilt, match="survive a restart"):
        Master(state_dir="/tmp")
