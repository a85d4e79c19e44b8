"""What etcd's answers say, checked: they come from a network. Numbers of 64 bits are strings in its JSON, and
what is 0 or empty is left out. All functions raise DamagedError."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from ..errors import DamagedError
from ..values.bounded_json import Json

Object = dict[str, Json]
_NUMBER = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True)
class KeyValue:
    key: bytes
    value: bytes
    create_revision: int  # of the key's present life: fences whoever knew an earlier one
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True)
class Transaction:
    succeeded: bool
    revision: int  # of the store, after it
    found: list[list[KeyValue]]  # of each range request of the branch that was taken, in order


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def as_object(value: Json) -> Object:
    if not isinstance(value, dict):
        raise DamagedError(f"etcd's answer has {type(value).__name__} where an object belongs")
    return value


def number(value: Json) -> int:
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DamagedError("etcd's answer has no whole number where one belongs")
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise DamagedError(f"etcd's answer has {value[:40]!r} where a whole number belongs")
    found = int(value)
    if not -(1 << 63) <= found < 1 << 64:
        raise DamagedError("etcd's answer has a number of more than 64 bits")
    return found


def cluster_of(answer: Object) -> int:
    """Who answers, by its header; a stream's is in its result."""
    answer = as_object(answer.get("result", answer))
    return number(as_object(answer.get("header")).get("cluster_id"))


def key_values(answer: Object) -> list[KeyValue]:
    """Of a range."""
    return [_key_value(as_object(item)) for item in _items(answer.get("kvs"))]


def transaction(answer: Object) -> Transaction:
    succeeded = answer.get("succeeded", False)
    if not isinstance(succeeded, bool):
        raise DamagedError("etcd's answer does not say whether a transaction succeeded")
    parts = [as_object(item) for item in _items(answer.get("responses"))]
    ranges = [as_object(part["response_range"]) for part in parts if "response_range" in part]
    revision = number(as_object(answer.get("header")).get("revision"))
    return Transaction(succeeded, revision, [key_values(part) for part in ranges])


def granted(answer: Object) -> tuple[int, int]:
    """A new lease: its number, and for how many seconds."""
    lease, seconds = number(answer.get("ID")), number(answer.get("TTL"))
    if lease == 0 or not 1 <= seconds <= 1 << 31:
        raise DamagedError("etcd's answer names no lease")
    return lease, seconds


def kept_alive(answer: Object) -> int:
    """For how many seconds more; 0: the lease is over."""
    seconds = number(as_object(answer.get("result")).get("TTL"))
    if not 0 <= seconds <= 1 << 31:
        raise DamagedError("etcd's answer has no time that a lease could have")
    return seconds


def _items(value: Json) -> list[Json]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise DamagedError(f"etcd's answer has {type(value).__name__} where a list belongs")
    return value


def _key_value(item: Object) -> KeyValue:
    return KeyValue(
        _bytes(item.get("key")),
        _bytes(item.get("value")),
        number(item.get("create_revision")),
        number(item.get("mod_revision")),
        number(item.get("lease")),
    )


def _bytes(value: Json) -> bytes:
    if value is None:
        return b""
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise DamagedError("etcd's answer has something else where base64 belongs")
