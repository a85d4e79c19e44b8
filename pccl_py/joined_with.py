"""How a peer joined its run: what another process of this host needs to join it too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple


class JoinedWith(NamedTuple):
    """As given to Communicator, or as its configuration said."""

    address: str
    secret_file: str | os.PathLike[str] | None
    encrypt: bool
    insecure: bool
    run_name: str
    listen: str | None
    advertise: str | Sequence[str] | None
