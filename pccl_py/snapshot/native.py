"""What the snapshot room takes from the core."""

from __future__ import annotations

from .. import _core
from ..logs import tie

tie(_core)

Disk = _core.Disk
MemoryCapture = _core.MemoryCapture
StagingPool = _core.StagingPool
crc32 = _core.crc32
populate_pages = _core.populate_pages
