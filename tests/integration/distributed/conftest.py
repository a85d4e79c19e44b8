"""One gang for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .gang import Gang

pytest.importorskip("torch")


@pytest.fixture(scope="session")
def gang() -> Iterator[Gang]:
    running = Gang()
    yield running
    running.close()
