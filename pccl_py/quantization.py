"""How the values of an all-reduce travel in few bits: `quantization="int8"`, or a `QuantConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .errors import UsageError

Kind = Literal["int8", "uint8", "int4", "fp8", "bf16"]
Rounding = Literal["nearest", "stochastic"]
NonFinite = Literal["raise", "skip"]

KINDS = {"int8": 2, "uint8": 3, "int4": 4, "fp8": 5, "bf16": 6}  # as csrc/base/quantization.hpp numbers them
BLOCK_MAX = 1024
Numbers = tuple[int, int, bool, bool]  # kind, block, stochastic, skips: as the core takes them
NO_QUANTIZATION: Numbers = (1, 0, False, False)


@dataclass(frozen=True)
class QuantConfig:
    """Each contribution is encoded once, summed in float32 (float64 for float64), and the sum encoded once.

    kind      int8 (largest magnitude / 127), uint8 (smallest to largest value / 255), int4 (largest
              magnitude / 7), fp8 (e4m3), each with a scale per block; bf16
    block     elements that share a scale, a multiple of 32 up to 1024. None: 64 for int4, else 256
    rounding  "nearest", or "stochastic": unbiased, with twice the largest error, and the same bits in every
              attempt
    non_finite  of NaN and infinity in the input. "raise": NonFiniteError on all peers, naming the peer.
              "skip" (op="avg" only): that peer's weight is 0 in this operation, on all peers alike;
              `OpInfo.skipped` names it, and `contributors` does not. NonFiniteError if that leaves nobody

    With R = 2 * the largest magnitude of a block (uint8: largest - smallest value), an average is off by at
    most R/254 (int8), R/255 (uint8), R/14 (int4), R/28 (fp8) of the largest R among the contributions; twice
    that if stochastic. Block-wise scales: Dettmers et al. 2022, arXiv 2110.02861.
    """

    kind: Kind = "int8"
    block: int | None = None
    rounding: Rounding = "nearest"
    non_finite: NonFinite = "raise"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"quantization kind {self.kind!r}: it is one of {', '.join(KINDS)}")
        whole = isinstance(self.block, int) and not isinstance(self.block, bool)
        if self.block is not None and not (whole and 32 <= self.block <= BLOCK_MAX and self.block % 32 == 0):
            raise UsageError(f"block={self.block!r}: it is a multiple of 32 up to {BLOCK_MAX}, or None")
        if self.rounding not in ("nearest", "stochastic"):
            raise UsageError(f"rounding={self.rounding!r}: it is 'nearest' or 'stochastic'")
        if self.non_finite not in ("raise", "skip"):
            raise UsageError(f"non_finite={self.non_finite!r}: it is 'raise' or 'skip'")


def numbers_of(quantization: str | QuantConfig | None) -> Numbers:
    """(kind, block, stochastic, skips) as the core takes them."""
    if quantization is None:
        return NO_QUANTIZATION
    if isinstance(quantization, str):
        quantization = QuantConfig(quantization)  # type: ignore[arg-type]  # checked there
    if not isinstance(quantization, QuantConfig):
        raise UsageError(f"quantization={quantization!r}: it is a name, a QuantConfig, or None")
    block = quantization.block or (64 if quantization.kind == "int4" else 256)
    stochastic, skips = quantization.rounding == "stochastic", quantization.non_finite == "skip"
    return KINDS[quantization.kind], block, stochastic, skips
