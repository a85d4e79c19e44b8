"""What DiLoCo trainers say of their states, held against each other. Pure.

After each window all hold the same shared state; and what a trainer goes on from is, bit for bit, what it or
its predecessors had at that step, and no older than what was durable.
"""

from __future__ import annotations

from collections import defaultdict


class TrainingLedger:
    """Each call returns what is wrong, for people."""

    def __init__(self) -> None:
        self._windows: dict[int, tuple[str, int]] = {}  # number -> digest, and who said it first
        self._steps: dict[int, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        self._durable: dict[int, int] = {}

    def window(self, trainer: int, number: int, digest: str) -> list[str]:
        first, who = self._windows.setdefault(number, (digest, trainer))
        if first == digest:
            return []
        return [f"window {number}: trainer {trainer} has shared state {digest}, trainer {who} has {first}"]

    def step(self, trainer: int, step: int, digest: str) -> None:
        """Steps are counted anew from where a successor goes on: one may have had several states."""
        self._steps[trainer][step].add(digest)

    def durable(self, trainer: int, step: int) -> None:
        self._durable[trainer] = max(step, self._durable.get(trainer, -1))

    def resumed(self, trainer: int, source: str, step: int | None, digest: str) -> list[str]:
        durable = self._durable.get(trainer, -1)
        if step is None:
            text = f"trainer {trainer} begins anew ({source}), its step {durable} was durable"
            return [text] if durable >= 0 else []
        if step < durable:
            return [f"trainer {trainer} goes on from step {step} ({source}), its step {durable} was durable"]
        if digest not in self._steps[trainer][step]:
            return [
                f"trainer {trainer} goes on from step {step} ({source}) with bits that it did not have then"
            ]
        return []
