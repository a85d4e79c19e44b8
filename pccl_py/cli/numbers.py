"""Types of command-line arguments: numbers within bounds, and messages that name the bounds."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """A whole number from `low` to `high`; None: without end."""
    wanted = f"a whole number of at least {low}" if high is None else f"a whole number from {low} to {high}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if number < low or (high is not None and number > high):
            raise argparse.ArgumentTypeError(f"{text!r}: it is {wanted}")
        return number

    return parse


def above_zero(text: str) -> float:
    """A finite number of seconds, or of whatever cannot be nothing."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: it is a number above 0")
    return number


def parsed(parse: Callable[[str], T]) -> Callable[[str], T]:
    """argparse's errors for those of a function that raises ValueError: the text is kept."""

    def argument(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return argument
