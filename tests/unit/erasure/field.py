"""GF(2^8) modulo 0x11d by polynomials and logarithms, and Reed-Solomon by Gauss: slow, and independent."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.uint8]]


def multiply(a: int, b: int) -> int:
    product = 0
    for bit in range(8):
        product ^= (a << bit) * (b >> bit & 1)
    for bit in range(14, 7, -1):
        product ^= (0x11D << (bit - 8)) * (product >> bit & 1)
    return product


PRODUCTS = np.array([[multiply(a, b) for b in range(256)] for a in range(256)], np.uint8)
INVERSES = [0, *(int(np.flatnonzero(PRODUCTS[a] == 1)[0]) for a in range(1, 256))]


def coefficient(row: int, slot: int) -> int:
    """1 / (row + (255 - slot)), over the same of row 0, and then over the first of the row."""

    def ratio(at: int) -> int:
        return multiply(INVERSES[row ^ (255 - at)], 255 - at)

    return multiply(ratio(slot), INVERSES[ratio(0)])


def generator(k: int, m: int) -> Array:
    """(k + m) x k: what every block is of the data."""
    parity = [[coefficient(row, slot) for slot in range(k)] for row in range(m)]
    return np.array([*np.eye(k, dtype=np.uint8), *parity], np.uint8)


def combine(factors: Array, blocks: Array) -> Array:
    """Matrix times blocks."""
    sums = np.zeros((len(factors), blocks.shape[1]), np.uint8)
    for row, of in enumerate(factors):
        for factor, block in zip(of, blocks, strict=True):
            sums[row] ^= PRODUCTS[factor][block]
    return sums


def solve(matrix: Array, right: Array) -> Array:
    """x of matrix x = right, by Gauss and Jordan."""
    matrix, right = matrix.copy(), right.copy()
    for column in range(len(matrix)):
        pivot = column + int(np.flatnonzero(matrix[column:, column])[0])
        inverse = INVERSES[int(matrix[pivot, column])]
        for side in (matrix, right):
            side[[column, pivot]] = side[[pivot, column]]
            side[column] = PRODUCTS[inverse][side[column]]
        for row in range(len(matrix)):
            if row != column and (factor := int(matrix[row, column])):
                matrix[row] ^= PRODUCTS[factor][matrix[column]]
                right[row] ^= PRODUCTS[factor][right[column]]
    return right
