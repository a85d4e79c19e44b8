"""A master for the tests here, on a free port, without a secret."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pccl_py import Master

from .peers import QUICK


@pytest.fixture
def master() -> Iterator[Master]:
    with Master(config=QUICK) as running:
        yield running
