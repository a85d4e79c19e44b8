"""The checkpoint format of pccl_py, version 1

FOLDERS. A root holds one folder per step, `step-` and 12 decimal digits. A step exists if its folder has a
`manifest.json` that is sound (see there); a folder without one is a leftover and MAY be removed. Names that
end in `.part` are files being written. A reader MUST NOT follow links inside of a root, and MUST refuse
what is no regular file. Names that this page does not describe belong to others and MUST be left alone.

ORDER OF WRITING. (1) Each shard file is written as NAME.part, made durable (fsync), renamed to NAME. (2)
Before, after or meanwhile the manifest is written as manifest.json.part and made durable, and so is the
root. (3) After both the folder is made durable, (4) the manifest renamed and the folder made durable again:
only then is the step saved. Retiring goes the other way: the manifest is unlinked and the folder made
durable before any byte of a shard file is changed or reused. One process at a time changes a root; it holds
an exclusive flock on `.saver.lock`.

SHARD FILES are safetensors files: 8 bytes N (little-endian), N bytes of JSON (UTF-8, one object, padded
with spaces), then the tensors' bytes, little-endian, row-major, without holes up to the end of the file. A
writer of ours MUST pad so that 8 + N is a multiple of 4096, and puts wide elements before narrow ones. One
file per rank, `shard-RRRRR-of-WWWWW.safetensors`; a reader MUST accept any name of letters, digits, `-` and
`_` that begins with a letter or digit and ends in `.safetensors`, and MUST refuse every other.

MANIFEST. The bytes are exactly the line
    {"format":"pccl-checkpoint","version":1,"sha256":"H","body":
then BODY, then a line feed, `}` and a line feed; H is the SHA-256 of BODY's bytes in 64 lower-case
hexadecimal digits. So the file is one JSON document, and a changed, missing or additional byte is found.
BODY is an object in UTF-8 without NaN, infinities, repeated keys or halves of surrogate pairs, and has
exactly these keys:
    step         integer, that of the folder's name
    time         seconds since 1970, a number
    world        ranks that wrote it
    block_bytes  4096 to 2^30; this release writes 2^20
    shards       list of {"file", "bytes", "data_offset", "crc32"}: name, size, where the data begin; crc32
                 is the CRC-32 (as zlib's) of each block of the file, header included, in 8 lower-case
                 hexadecimal digits each, put together. Block i is the bytes from i * block_bytes; the last
                 may be short.
    tensors      object by name of {"dtype", "shape", "pieces"}: dtype as safetensors names it, shape of the
                 whole tensor, pieces a list of {"shard", "offset", "start", "shape", "crc32"}: index into
                 shards, first byte counted from the file's begin, the box that it is of the tensor, CRC-32 of
                 its bytes. Pieces of a tensor MUST be disjoint boxes, not empty, that cover it; no two pieces
                 MAY share a byte; each lies in its shard's data.
    objects      object by part of the state of tagged JSON: what is common to all ranks
    private      object by rank (decimal) of objects by part: what each rank has for itself
    notes        object of texts
A reader MUST refuse other keys, other versions, and whatever breaks a limit.

NAMES of tensors are paths in the state, joined by "/"; in a part "~" is "~0" and "/" is "~1". They MUST be
Unicode without control characters, not empty, and not `__metadata__`. In a shard's header a tensor that has
several pieces there is called NAME~p0, NAME~p1, ...

TAGGED JSON. null, booleans, integers of 64 bits, finite numbers, texts, lists, and objects whose keys do not
begin with "$" stand for themselves. All else is an object with one key:
    {"$tensor": name}  {"$tuple": [...]}  {"$set": [...]}  {"$frozenset": [...]}
    {"$dict": [[key, value], ...]}
    {"$slice": [a, b, c]}  {"$range": [a, b, c]}  {"$int": hexadecimal}  {"$complex": [real, imaginary]}
    {"$float": "nan" | "inf" | "-inf" | 16 hexadecimal digits of an IEEE double, most significant first}
    {"$bytes": base64}  {"$bytearray": base64}  {"$str": base64 of UTF-8 with surrogates}
    {"$scalar": [D, base64]}  {"$array": [D, shape, base64]}  {"$numpy_dtype": D}   D as numpy, e.g. "<f4"
    {"$inline": [dtype, shape, base64]}  {"$dtype": name}  {"$device": name}  {"$size": [...]}   of torch
A reader MUST refuse unknown tags, and MUST NOT import or call anything by a name from a checkpoint.

LIMITS (writers keep to them, readers refuse beyond): manifest 256 MiB; JSON nested 64 deep, a tagged value
48; 1,000,000 tensors; 65,536 shards, pieces per tensor and ranks; 32 dimensions; names 4,096 bytes of
UTF-8; sizes and offsets below 2^63; steps below 10^12; header of a shard 100,000,000 bytes; inline arrays
16 MiB; integers of 65,536 bits.

VERIFYING. Bytes MUST NOT be used before the CRC-32 of every block they lie in (or of the whole piece) was
found right. CRC-32 finds accidents, not attackers: who can write to the folder can write a checkpoint.
"""

from __future__ import annotations


def text() -> str:
    """The page above."""
    return __doc__ or ""
