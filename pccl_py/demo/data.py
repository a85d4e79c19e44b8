"""Text as bytes: by default the sources of the running Python's standard library.

What is held out is decided by each file's own content, so that all peers hold out the same, in any order.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UsageError

HELD_OUT = 0.05  # of the files
WITHOUT = {
    "test",
    "tests",
    "site-packages",
    "dist-packages",
    "lib2to3",
    "idlelib",
    "__pycache__",
    "pydoc_data",
}
BYTES_MAX = 16 << 20  # plenty for a demonstration, and quick to read


class Corpus:
    """`train` and `held_out`: bytes as uint8 [n]. digest: of both, to see whether peers read the same."""

    def __init__(self, train: bytes, held_out: bytes) -> None:
        self.train = torch.frombuffer(bytearray(train), dtype=torch.uint8)
        self.held_out = torch.frombuffer(bytearray(held_out), dtype=torch.uint8)
        self.digest = hashlib.sha256(train + b"\0" + held_out).hexdigest()[:12]

    def batches(self, size: int, length: int, seed: int) -> Iterator[Tensor]:
        """Passages at random places of the training text, int64 [size, length], for ever."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            begin = torch.randint(len(self.train) - length, (size,), generator=generator)
            yield _passages(self.train, begin, length)

    def passages(self, length: int) -> int:
        """How many the training text has, one after the other."""
        return len(self.train) // length

    def batch_of(self, passages: Sequence[int], length: int) -> Tensor:
        """Those, int64 [len(passages), length]."""
        return _passages(self.train, torch.tensor(passages, dtype=torch.int64) * length, length)

    def held_out_batch(self, size: int, length: int) -> Tensor:
        """The same passages always, evenly spread over the held-out text, int64 [size, length]."""
        begin = torch.linspace(0, len(self.held_out) - length, size).long()
        return _passages(self.held_out, begin, length)


def load(files: Sequence[str | Path], length: int) -> Corpus:
    """`files`: none for the standard library. `length`: of the shortest passage that is wanted."""
    paths = [Path(file) for file in files] or standard_library()
    train: list[bytes] = []
    held_out: list[bytes] = []
    total = 0
    for path in paths:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UsageError(f"cannot read the text: {error}") from error
        total += len(content)
        chosen = int.from_bytes(hashlib.sha256(content).digest()[:4]) < HELD_OUT * 2**32
        (held_out if chosen else train).append(content)
        if total > BYTES_MAX:
            break
    corpus = Corpus(*_both(b"\n".join(train), b"\n".join(held_out), length))
    if min(len(corpus.train), len(corpus.held_out)) <= length:
        raise UsageError(f"{total} bytes of text are too few: passages of {length} bytes are wanted")
    return corpus


def _both(train: bytes, held_out: bytes, length: int) -> tuple[bytes, bytes]:
    """With too few files to choose from, the end of the text is held out."""
    if min(len(train), len(held_out)) > length:
        return train, held_out
    text = train + held_out
    cut = int(len(text) * (1 - HELD_OUT))
    return text[:cut], text[cut:]


def standard_library() -> list[Path]:
    """Its sources without tests, in the order of their names."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / name for name in sorted(names) if not WITHOUT.intersection(name.parts)]


def _passages(text: Tensor, begin: Tensor, length: int) -> Tensor:
    return text[begin[:, None] + torch.arange(length)].long()
