"""A run is known by its local folder: a random name in it, the same for every process that saves there."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from .files import explained, opened, read_at, write_durably

FILE = ".run"


def run_name(root: Path) -> str:
    with explained(f"read {root / FILE}"):
        try:
            with opened(root, FILE) as (file, _):
                found = read_at(file, 0, 100).decode("ascii", "replace").strip()
            if re.fullmatch("[0-9a-f]{32}", found):
                return found
        except FileNotFoundError:
            pass
        made = secrets.token_hex(16)
        write_durably(root, FILE, made.encode() + b"\n")
        return made
