"""What the checkpoint room takes from the core: the staging pool, a save in flight, verified reading."""

from __future__ import annotations

from .. import _core
from ..logs import tie

tie(_core)

Disk = _core.Disk
Glimpses = _core.Glimpses
InjectedDisk = _core.InjectedDisk
MemoryCapture = _core.MemoryCapture
Prefetch = _core.Prefetch
SaveReceipt = _core.SaveReceipt
ShardSave = _core.ShardSave
ShardWriter = _core.ShardWriter
StagingPool = _core.StagingPool
CaptureJob = _core.ShardSave | _core.MemoryCapture
crc32 = _core.crc32
crc32_combine = _core.crc32_combine
read_verified = _core.read_verified
