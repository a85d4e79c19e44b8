"""Every maximum of the checkpoint format, with its reason. Writers keep to them, readers refuse beyond."""

from __future__ import annotations

MANIFEST_BYTES_MAX = 256 << 20  # 1e6 tensors need about 200 MiB; parsed it takes several times as much
HEADER_BYTES_MAX = 100_000_000  # what readers of safetensors accept
JSON_DEPTH_MAX = 64  # Python's own parser fails at about 1,000
TAGGED_DEPTH_MAX = 48  # of one value, so that it fits into a manifest wherever it stands
NAME_BYTES_MAX = 4096  # of a tensor's name, in UTF-8
TENSORS_MAX = 1_000_000
SHARDS_MAX = 65_536
RANK_MAX = 32  # dimensions of a tensor
INT_MAX = (1 << 63) - 1  # sizes and offsets: what a file can have
STEP_MAX = 10**12 - 1  # 12 digits in a folder's name
BLOCK_BYTES = 1 << 20  # what this release writes
BLOCK_BYTES_MIN = 4096
BLOCK_BYTES_MAX = 1 << 30
ALIGNMENT = 4096  # of the data in a shard file: what O_DIRECT asks for
INLINE_BYTES_MAX = 16 << 20  # of an array inside the object tree; larger ones are tensors of a shard
INT_BITS_MAX = 1 << 16  # of an integer in the object tree: states of random generators have 128 to 19,968
