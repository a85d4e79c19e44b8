"""`bench ckpt --saves N`: what memory our saves take beyond the state, after some and after many.

`python -m pccl_py.bench.ckpt.growth BYTES SHARE SAVES FOLDER` is one process of it: saves of a state that
changes between them, one after the other; the last one is loaded again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..plot import Bar
from ..report import titles
from ..units import bytes_text

SHARES = (1.0, 0.25)
EARLY = 5  # saves, after which everything has been made once
GROWTH_MAX = 4 << 20  # allocators settle: 2 MiB in the first hundred saves, and no more after them
LIMIT_S = 900
HEAD = titles("pool:10 state:8 saves:6 after_5_MiB:12 after_all_MiB:14 grown_KiB:10")


@dataclass(frozen=True, slots=True)
class GrowthRow:
    """Peaks of resident memory beyond what the process had before it made the pool, in bytes: until the first
    saves were over, and until all were. `right`: what was loaded is what was saved."""

    pool_bytes: int
    bytes: int
    saves: int
    early_bytes: int
    extra_bytes: int
    right: bool

    @property
    def grown(self) -> int:
        return self.extra_bytes - self.early_bytes

    def record(self) -> dict[str, Any]:
        found = asdict(self) | {"grown_bytes": self.grown, "reached": self.grown <= GROWTH_MAX}
        return {"bench": "ckpt", "method": "growth"} | found

    def head(self) -> str:
        return HEAD

    def line(self) -> str:
        return (
            f"{bytes_text(self.pool_bytes >> 20 << 20):>10} {bytes_text(self.bytes >> 20 << 20):>8} "
            f"{self.saves:6} {self.early_bytes >> 20:12} {self.extra_bytes >> 20:14} {self.grown >> 10:10}"
            + ("" if self.right else "  WRONG")
        )

    def bar(self) -> Bar:
        values = {"after 5": float(self.early_bytes), "after all": float(self.extra_bytes)}
        return Bar(f"pool of {bytes_text(self.pool_bytes >> 20 << 20)}", values, "B")


def measure(sizes: Sequence[int], saves: int, folder: str | None) -> Iterator[GrowthRow]:
    """With a pool of the state's size, and with one of a quarter. Raises RuntimeError where one fails."""
    for size in sizes:
        for share in SHARES:
            with tempfile.TemporaryDirectory(prefix="pccl-ckpt-", dir=folder) as place:
                words = [sys.executable, "-m", __name__, str(size), str(share), str(saves), place]
                done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"{saves} saves failed ({done.returncode}): {done.stderr[-2000:]}")
            yield GrowthRow(**json.loads(done.stdout.splitlines()[-1]))


def main(size: int, share: float, saves: int, folder: Path) -> None:
    import torch

    from .savers import Ours
    from .state import state_of, tensors_of
    from .worker import PeakMemory

    torch.set_num_threads(1)
    model, optimizer = state_of(size)
    tensors = tensors_of(model, optimizer)
    memory = PeakMemory()
    ours = Ours(folder, model, optimizer, share)
    ours.prepare()  # all pages of the pool, which else come as they are needed
    early = 0
    for number in range(saves):
        with torch.no_grad():
            for tensor in tensors.values():
                tensor.view(-1)[:1].fill_(number)
        ours.begin(number)
        ours.finish()
        early = memory.extra() if number < EARLY else early
    extra = memory.extra()
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.zero_()
    ours.load()
    right = all(torch.equal(tensors[name], value) for name, value in before.items())
    pool = ours.pool_bytes
    ours.close()
    total = sum(tensor.nbytes for tensor in tensors.values())
    print(json.dumps(asdict(GrowthRow(pool, total, saves, early, extra, right))))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
