"""Small changes of bytes, of the kinds that decoders trip over."""

from __future__ import annotations

import random

BYTES_MAX = 4096
# What JSON, HTTP and pickles are made of, and numbers at their bounds.
WORDS = (
    b'{ } [ ] , : " \\u0000 \\ud800 null true false NaN Infinity -1 0 1 1e999 -0.0 9223372036854775807 '
    b"18446744073709551616 1.5 00 \xff \xed\xa0\x80 \x80"
).split() + [b"\r\n", b" ", b"\0", b"\n"]


def mutate(data: bytes, other: bytes, draw: random.Random) -> bytes:
    """`other`: an input that parts are taken of."""
    made = bytearray(data)
    for _ in range(draw.randint(1, draw.randint(1, 6))):
        _change(made, other, draw)
    return bytes(made[:BYTES_MAX])


def _change(data: bytearray, other: bytes, draw: random.Random) -> None:
    at = draw.randrange(len(data) + 1)
    end = min(len(data), at + draw.randint(1, draw.choice((1, 4, 40))))
    kind = draw.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << draw.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = draw.randrange(256)
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = data[at:end]  # twice
    elif kind == 4:
        data[at:end] = draw.choice(WORDS)
    elif kind == 5:
        data[at:at] = draw.choice(WORDS)
    elif kind == 6 and other:
        begin = draw.randrange(len(other))
        data[at:at] = other[begin : begin + draw.randint(1, 60)]
    else:
        value = draw.choice((0, 1, 255, 0x7FFF, 0xFFFF, 0xFFFFFFFF, 1 << draw.randrange(32)))
        data[at : at + 4] = value.to_bytes(4, "little")
