"""What travels with gradients: which samples were used, and which parameters had a gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .elastic_sampler import ElasticSampler


class StepCard:
    """`inputs` and `outputs` are [places + parameters] int32, summed over the peers. Without a sampler there
    is one place: this peer's samples."""

    def __init__(self, sampler: ElasticSampler | None, parameters: int) -> None:
        self._sampler = sampler
        self._places = 1 if sampler is None else sampler.global_batch
        self.inputs = torch.zeros(self._places + parameters, dtype=torch.int32)
        self.outputs = torch.zeros_like(self.inputs)
        self._had = self.inputs[self._places :]
        self.samples = 0

    def fill(self, peer: int, samples: int) -> float:
        """A step begins. samples: of this peer, where no sampler says it. What its gradient is to be
        multiplied by before it is summed."""
        if self._sampler is None:
            self.inputs[0] = self.samples = samples
        else:
            used = self._sampler.used(peer)
            self.inputs[: self._places] = torch.from_numpy(used)
            self.samples = int(used.sum())
        self._had.fill_(1)
        return self.samples / self.expected

    def had_none(self, parameter: int) -> None:
        """Backward did not come to it."""
        self._had[parameter] = 0

    @property
    def expected(self) -> int:
        """The samples that gradients are divided by, before it is known how many were used."""
        return 1 if self._sampler is None else self._places

    @property
    def used(self) -> Tensor:
        """[places] int32, after the commit."""
        return self.outputs[: self._places]

    def any_had(self, parameter: int) -> bool:
        """Whether some peer had a gradient for it, after the commit."""
        return int(self.outputs[self._places + parameter]) > 0

    @property
    def all_had(self) -> bool:
        return bool((self.outputs[self._places :] > 0).all())

    def commit(self, contributors: tuple[int, ...]) -> None:
        if self._sampler is not None:
            self._sampler.commit(np.asarray(self.used.numpy()), contributors)
