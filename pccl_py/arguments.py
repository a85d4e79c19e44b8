"""What users write, checked and turned into the core's numbers: csrc/wire/types.hpp, base/dtype.hpp."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from .errors import UsageError
from .tensors import DTYPE_CODES, FLOATING, Operand

# How values are combined; by which way they travel; whose operation it is (of one peer group, or of all);
# what a call does when a peer is lost; and whose content a shared state takes. What each of them means is
# said where it is taken: Communicator.all_reduce, and sync_shared_state.
Op = Literal["sum", "avg", "prod", "min", "max"]
Algorithm = Literal["auto", "ring", "direct", "exchange", "two-level"]
Scope = Literal["group", "run"]
OnLoss = Literal["retry", "raise"]
Strategy = Literal["enforce_popular", "send_only", "receive_only"]

OPS = {"sum": 1, "avg": 2, "prod": 3, "min": 4, "max": 5}
ALGORITHMS = {"auto": 1, "ring": 2, "direct": 3, "exchange": 4, "two-level": 5}
SCOPES = {"group": 1, "run": 2}
ON_LOSS = {"retry": 1, "raise": 2}
REMAKE = 3  # an on_loss that no caller names: all_reduce(remake=...)
STRATEGIES = {"enforce_popular": 1, "send_only": 2, "receive_only": 3}
ROLES = {"trainer": 1, "keeper": 2}
ROLE_NAMES = {number: name for name, number in ROLES.items()}
TAG_MAX = 2**32 - 3
_ADDRESS = re.compile(r"(\[[^\s\[\]/]+\]|[^\s\[\]:/]+)(:(?P<port>[0-9]{1,5}))?")
U16_MAX, U32_MAX = 2**16 - 1, 2**32 - 1


def number_of(value: object, table: Mapping[str, int], what: str) -> int:
    """`table[value]`, or a UsageError that lists what there is."""
    number = table.get(value) if isinstance(value, str) else None
    if number is None:
        raise UsageError(f"{what}={value!r}: it is one of {', '.join(repr(name) for name in table)}")
    return number


def whole(value: object, what: str, low: int, high: int) -> int:
    """A whole number (Python's or numpy's, no bool) within bounds."""
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not low <= number <= high:
        raise UsageError(f"{what}={value!r}: it is a whole number from {low} to {high}")
    return number


def name_of(tag: int | None) -> int:
    """How the core names operations: 0 is numbered automatically, a user's tag is one more."""
    return 0 if tag is None else whole(tag, "tag", 0, TAG_MAX) + 1


def seconds_of(timeout: float | None, default: float) -> float:
    """As the core takes it: negative is without limit. A default of 0 is that too."""
    if timeout is None:
        return default if default > 0 else -1.0
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
        raise UsageError(f"timeout={timeout!r}: it is a number of seconds above 0, or None")
    return float(timeout) if math.isfinite(timeout) else -1.0


def wait_of(timeout: float | None) -> float:
    """As seconds_of, for `Work.wait`, where 0 asks without waiting."""
    return 0.0 if not isinstance(timeout, bool) and timeout == 0 else seconds_of(timeout, 0)


def weight_of(weight: float, op: str, tensors: Sequence[Operand]) -> float:
    """A weight makes sense for averages of floating dtypes only."""
    if op != "avg":
        raise UsageError(f"weight with op={op!r}: only op='avg' takes a weight")
    try:
        value = math.nan if isinstance(weight, bool | np.bool_ | str | bytes) else float(weight)
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"weight={weight!r}: it is a finite number, at least 0")
    if any(tensor.code not in FLOATING for tensor in tensors):
        raise UsageError("weight with a tensor of an integer dtype: a weighted average takes floating dtypes")
    double = all(tensor.code == DTYPE_CODES["float64"] for tensor in tensors)
    power = 512 if double else 64
    if value != 0 and not 2.0**-power <= value <= 2.0**power:
        raise UsageError(
            f"weight={weight!r}: too far from 1 for sums in {'float64' if double else 'float32'}; it is 0 or "
            f"from 2**-{power} to 2**{power}: multiply the weights of all peers by one factor"
        )
    return value


def algorithm_number(algorithm: str) -> int:
    return number_of(algorithm, ALGORITHMS, "algorithm")


def check_quantized(op: str, tensors: Sequence[Operand], *, skips: bool) -> None:
    """Codes of few bits mean something in sums and averages of floating dtypes; a sum can skip nobody."""
    if op not in ("sum", "avg"):
        raise UsageError(f"quantization with op={op!r}: it takes 'sum' or 'avg'")
    if any(tensor.code not in FLOATING for tensor in tensors):
        raise UsageError("quantization with a tensor of an integer dtype: it takes floating dtypes")
    if skips and op != "avg":
        raise UsageError(f"non_finite='skip' with op={op!r}: only op='avg' can leave a peer out")


def check_remade(remake: object, *, out: object, on_loss: str, async_op: bool) -> None:
    """Who makes its input again is there to do it, and has no other place for the result."""
    if not callable(remake):
        raise UsageError(f"remake={remake!r}: it is a function that fills the tensors anew")
    if out is not None or on_loss != "retry" or async_op:
        raise UsageError(
            "remake is for operations in place that are waited for and repeated: without out, "
            "on_loss='raise' and async_op"
        )


def role_number(role: str) -> int:
    return number_of(role, ROLES, "role")


def island_of(island: str | None, size: int, group: int) -> tuple[str, int, int, int]:
    """(name, rank in the island, size, group). Rank r of every island is in group r; a plain peer is an
    island of
    one, in any group."""
    size, group = whole(size, "island_size", 1, U16_MAX), whole(group, "group", 0, U32_MAX)
    if island is not None and (not isinstance(island, str) or not 0 < len(island.encode()) <= 256):
        raise UsageError(f"island={island!r}: it is a text of 1 to 256 bytes, or None")
    if size == 1:
        return island or "", 0, 1, group
    if island is None:
        raise UsageError(f"island_size={size} without island: give all its ranks the same name")
    if group >= size:
        raise UsageError(f"group={group} in an island of {size}: the group is the rank in the island")
    return island, group, size, group


def run_name_of(name: object) -> str:
    if not isinstance(name, str) or len(name.encode(errors="surrogatepass")) > 256:
        raise UsageError(f"run_name={name!r}: it is a text of at most 256 bytes")
    return name


def dialled(address: Any, what: str) -> str:
    """An address that others connect to: it names a host, and no port 0. The rest is the core's to check."""
    if not isinstance(address, str) or not address:
        raise UsageError(f"{what}={address!r}: it is 'host:port', or '[IPv6]:port'")
    host, colon, port = address.rpartition(":")
    if colon and not host.strip("[]"):
        raise UsageError(f"{what}={address!r} names no host: write 'host:port'; this one is 'localhost'")
    if colon and port.isdecimal() and int(port) == 0:
        raise UsageError(f"{what}={address!r}: nobody listens on port 0; pass the port that was printed")
    return address


def advertised(value: str | Sequence[str] | None) -> list[str]:
    """Addresses that others dial, whose port may be left out: it is the own one then."""
    several = [dialled(text, "advertise") for text in texts(value, "advertise")]
    for text in several:
        port = (found := _ADDRESS.fullmatch(text)) and found["port"]
        if not found or (port and int(port) > U16_MAX):
            raise UsageError(f"advertise={text!r}: it is 'host', 'host:port', '[IPv6]' or '[IPv6]:port'")
    return several


def texts(value: str | Sequence[str] | None, what: str) -> list[str]:
    """One text or several, as a list."""
    several = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(several, list | tuple) or not all(isinstance(text, str) and text for text in several):
        raise UsageError(f"{what}={value!r}: it is 'host', 'host:port', or a list of these")
    return list(several)
