"""What the erasure room takes from the core."""

from __future__ import annotations

from .. import _core

ReedSolomon = _core.ReedSolomon
Stripes = _core.Stripes
code_groups = _core.code_groups
coefficient = _core.rs_coefficient
copy_crc32c = _core.copy_crc32c
crc32c = _core.crc32c
crc32c_combine = _core.crc32c_combine
galois_encode = _core.galois_encode
galois_levels = _core.galois_levels
