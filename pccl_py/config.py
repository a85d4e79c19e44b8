"""Every knob in one place: typed, bounded, documented, read once.

An argument wins over the environment (`PCCL_*`), and that over the default.
`python -m pccl_py config` shows value and origin of each.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, TypeVar

from .errors import UsageError

T = TypeVar("T")
Value = int | float | str


def knob(
    default: T,
    env: str,
    *,
    help: str,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    timing: bool = False,
) -> T:
    """A field of Config. `timing`: the core's Timing has an attribute of the same name."""
    about = {"env": env, "help": help, "at_least": at_least, "at_most": at_most, "timing": timing}
    return field(default=default, metadata=about)


def timing(default: T, env: str, *, help: str, at_least: float = 1, at_most: float = 86_400_000) -> T:
    """A knob of the protocol, in milliseconds unless its name says otherwise; a day at most."""
    return knob(default, env, help=help, at_least=at_least, at_most=at_most, timing=True)


@dataclass(frozen=True)
class Config:
    """`Config(heartbeat_ms=100)`: defaults but this one. `Config.load(...)` also reads the environment."""

    heartbeat_ms: int = timing(
        500, "PCCL_HEARTBEAT_MS", at_least=50,
        help="Each side says so often that it lives. The master's value holds for its peers.",
    )  # fmt: skip
    heartbeats_missed_max: int = timing(
        4, "PCCL_HEARTBEATS_MISSED_MAX", at_least=2, at_most=1000,
        help="A peer or master silent for so many heartbeats is lost.",
    )  # fmt: skip
    reconnect_ms: int = timing(
        1500, "PCCL_RECONNECT_MS", help="A broken connection to the master may come back within this time."
    )
    settle_ms: int = timing(
        20, "PCCL_SETTLE_MS", help="A lost link waits so long for news of a death that explains it."
    )
    redial_ms: int = timing(
        2000, "PCCL_REDIAL_MS", help="A link that cannot be opened for so long is broken for good."
    )
    redial_every_ms: int = timing(20, "PCCL_REDIAL_EVERY_MS", help="Pause between two attempts at a link.")
    prove_ms: int = timing(5000, "PCCL_PROVE_MS", help="A joiner opens its ring links within this time.")
    waiting_notice_ms: int = timing(
        1000, "PCCL_WAITING_NOTICE_MS", help="A caller that waits longer is told who is missing."
    )
    verdict_ms: int = timing(
        5000, "PCCL_VERDICT_MS", help="An operation given up here waits so long for the master to agree."
    )
    master_lost_ms: int = timing(
        30_000, "PCCL_MASTER_LOST_MS",
        help="Without the master, or one in its place, for so long, calls raise MasterLost.",
    )  # fmt: skip
    grace_ms: int = timing(2000, "PCCL_GRACE_MS", help="A restarted master listens so long before it speaks.")
    deadline_floor_ms: int = timing(
        30_000, "PCCL_DEADLINE_FLOOR_MS", help="No operation that all peers posted is given up earlier."
    )
    deadline_k: float = timing(
        16.0, "PCCL_DEADLINE_K", at_most=1e6,
        help="The deadline is the median of past durations plus so many times their spread.",
    )  # fmt: skip
    straggler_ms: int = timing(
        0, "PCCL_STRAGGLER_MS", at_least=0,
        help="At the master: few who keep all others waiting for so long are evicted. 0: nobody is.",
    )  # fmt: skip
    connect_timeout_s: float = knob(
        600.0, "PCCL_CONNECT_TIMEOUT_S", at_least=0, at_most=1e9,
        help="To be admitted, in seconds; a running group admits at its next boundary. 0: no limit.",
    )  # fmt: skip
    operation_timeout_s: float = knob(
        0.0, "PCCL_OPERATION_TIMEOUT_S", at_least=0, at_most=1e9,
        help="For an operation called without a timeout, in seconds. 0: no limit, a slow peer is no error.",
    )  # fmt: skip
    pinned_mb: int = knob(
        2048, "PCCL_PINNED_MB", at_least=0, at_most=1 << 30,
        help="Page-locked host memory for CUDA tensors on their way, in MiB; beyond it, copies are slower.",
    )  # fmt: skip
    congestion_control: str = knob(
        "auto", "PCCL_CONGESTION_CONTROL",
        help="Of data links: a name that the kernel knows, or auto (by the path).",
    )  # fmt: skip
    secret_file: str = knob(
        "", "PCCL_SECRET_FILE",
        help="A file with the run's secret, where no argument names one. Empty: none.",
    )  # fmt: skip
    encrypt: str = knob(
        "auto", "PCCL_ENCRYPT",
        help="A secret encrypts: yes; it only proves who is there: no. auto: no where a torch group drew it.",
    )  # fmt: skip
    libssl: str = knob(
        "", "PCCL_LIBSSL",
        help="Path of OpenSSL 3's libssl, for runs that encrypt. Empty: Python's own, or libssl.so.3.",
    )  # fmt: skip
    host_label: str = knob(
        "", "PCCL_HOST_LABEL",
        help="Peers with the same label count as one host. Empty: found by the kernel's boot id.",
    )  # fmt: skip
    transport: str = knob(
        "auto", "PCCL_TRANSPORT", help="Between peers of one host: auto, shm, cma or tcp (see Communicator)."
    )
    recorded_events: int = knob(
        16_384, "PCCL_RECORDED_EVENTS", at_least=0, at_most=1 << 20,
        help="The last events that a peer keeps, 64 bytes each, for diagnose() and dumps. 0: none.",
    )  # fmt: skip
    trace_dir: str = knob(
        "", "PCCL_TRACE_DIR",
        help="Folder for recorded events: kept in a file there, dumped when an operation fails. Empty: none.",
    )  # fmt: skip
    stripes: int = knob(
        0, "PCCL_STRIPES", at_least=0, at_most=16,
        help="TCP streams of each link; the larger of both ends' wishes counts. 0: by path, 2 to 16.",
    )  # fmt: skip

    def __post_init__(self) -> None:
        for item in fields(self):
            object.__setattr__(self, item.name, _checked(item, getattr(self, item.name), item.name))

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **arguments: Value | None) -> Config:
        """Arguments that are not None, then the environment, then defaults."""
        return cls(**{setting.name: setting.value for setting in settings(environ, **arguments)})

    def apply(self, timing: T) -> T:
        """Copies the protocol's knobs to the core's Timing and returns it."""
        for item in fields(self):
            if item.metadata["timing"]:
                setattr(timing, item.name, getattr(self, item.name))
        return timing


@dataclass(frozen=True)
class Setting:
    """One knob as it is now. `origin`: "argument", the variable's name, or "default"."""

    name: str
    value: Any
    origin: str
    env: str
    help: str


def settings(environ: Mapping[str, str] | None = None, **arguments: Value | None) -> list[Setting]:
    """Value and origin of every knob, in the order of the class."""
    environ = os.environ if environ is None else environ
    if unknown := arguments.keys() - {item.name for item in fields(Config)}:
        raise UsageError(f"no such setting: {', '.join(sorted(unknown))}; see `python -m pccl_py config`")
    return [_setting(item, environ, arguments.get(item.name)) for item in fields(Config)]


def _setting(item: Field[Any], environ: Mapping[str, str], argument: Value | None) -> Setting:
    env, text = item.metadata["env"], environ.get(item.metadata["env"], "").strip()
    if argument is not None:
        value, origin = _checked(item, argument, item.name), "argument"
    elif text:
        value, origin = _checked(item, _parsed(item, text), env), env
    else:
        value, origin = _default(item), "default"
    return Setting(item.name, value, origin, env, item.metadata["help"])


def _default(item: Field[Any]) -> Value:
    default: Value = item.default  # type: ignore[assignment]  # every knob has one
    return default


def _parsed(item: Field[Any], text: str) -> Value:
    kind = type(_default(item))
    try:
        return text if kind is str else kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise UsageError(f"{item.metadata['env']} is {text!r}; it takes {wanted}") from None


def _checked(item: Field[Any], value: Any, name: str) -> Value:
    """`value` as the field's type, within its bounds. `name`: what the message calls it."""
    kind = type(_default(item))
    whole_as_float = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if not (type(value) is kind or whole_as_float):
        raise UsageError(f"{name} is {value!r}; it takes {kind.__name__}")
    if kind is str:
        return str(value)
    low, high = item.metadata["at_least"], item.metadata["at_most"]
    if not low <= value <= high:  # also refuses nan
        raise UsageError(f"{name} is {value}; it lies between {low:g} and {high:g}")
    return float(value) if kind is float else int(value)
