"""Erasure codes in memory: m parities beside k blocks of data, and any k of the k + m give all back.

    code = ReedSolomon(4, 2)
    parity = code.encode(data)                        # a buffer of 4 equal blocks, or a list of 4
    code.decode([d0, None, d2, d3, p0, p1], present=[0, 2, 3, 4, 5])

Systematic Reed-Solomon over GF(2^8) (Reed and Solomon 1960) with a Cauchy matrix (Bloemer et al. 1995). Works
in the caller's memory, numpy or torch, of any dtype; the GIL is free meanwhile. What a snapshot of many hosts
needs beside it: how safe a code is, which code to take, and who holds what.
"""

from __future__ import annotations

from .placement import Stripes, code_groups
from .reed_solomon import ReedSolomon, Verdict
from .sums import copy_crc32c, crc32c, crc32c_combine
from .survival import ChosenCode, choose_code, loss_probability, survival_probability

__all__ = [
    "ChosenCode",
    "ReedSolomon",
    "Stripes",
    "Verdict",
    "choose_code",
    "code_groups",
    "copy_crc32c",
    "crc32c",
    "crc32c_combine",
    "loss_probability",
    "survival_probability",
]
