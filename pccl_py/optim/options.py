"""The arguments that the whole family shares, checked."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypedDict

import torch

from ..errors import UsageError
from ..parallel.elastic_sampler import ElasticSampler
from ..quantization import QuantConfig, numbers_of
from . import samples
from .fragments import Schedule
from .pace import PaceRules
from .reduction import How
from .rules import Rules
from .weights import Weighting, described, weighting_of

InnerStateOnJoin = Literal["keep", "zero", "copy"]
NonFinite = Literal["raise", "skip"]
OuterFactory = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]


class Common(TypedDict, total=False):
    """What all classes take; DiLoCo says what it means."""

    quantization: str | QuantConfig | None
    error_feedback: bool | None
    non_finite: NonFinite
    weighting: str | Weighting
    merge: Literal["mean", "rda"]
    outer_momentum_clip: float | None
    backup_device: str | torch.device | None
    pin_memory: bool | None
    bucket_cap_mb: float | None
    inner_state_on_join: InnerStateOnJoin
    verify_every: int
    sampler: ElasticSampler | None


class Paced(Common, total=False):
    """What those take that reduce everything at once, and wait for it."""

    local_steps: Literal["fixed", "dynamic"]
    min_steps: int
    min_peers: int | None
    grace_ms: float


@dataclass(frozen=True)
class Settings:
    """Checked arguments.

    pipelined   the average of a window is applied at the end of the next one
    lookahead   a window starts where the outer step would lead if the own delta were the average
    pace        how many steps a peer takes in a window, and how long it is waited for
    alpha       share of a model's own values that stays when a fragment is applied
    feedback    what quantization loses is added to the next delta
    described   what must be the same on all peers
    """

    kind: str
    schedule: Schedule
    outer: OuterFactory
    how: How
    rules: Rules
    weighting: Weighting
    described: str
    pipelined: bool = False
    alpha: float = 0.0
    staleness: str = "none"
    lookahead: bool = False
    feedback: bool = False
    non_finite: str = "raise"
    device: torch.device | None = None
    pin_memory: bool | None = None
    inner_on_join: str = "keep"
    sampler: ElasticSampler | None = None
    verify_every: int = 0
    pace: PaceRules = field(default_factory=lambda: PaceRules(1))


def settings(
    kind: str,
    outer: OuterFactory,
    *,
    sync_every: int,
    num_fragments: int = 1,
    delay: int = 0,
    alpha: float = 0.0,
    pipelined: bool = False,
    staleness: str = "none",
    lookahead: bool = False,
    quantization: str | QuantConfig | None = None,
    error_feedback: bool | None = None,
    non_finite: NonFinite = "raise",
    weighting: str | Weighting = "uniform",
    merge: str = "mean",
    outer_momentum_clip: float | None = None,
    backup_device: str | torch.device | None = None,
    pin_memory: bool | None = None,
    bucket_cap_mb: float | None = None,
    inner_state_on_join: str = "keep",
    verify_every: int = 0,
    sampler: ElasticSampler | None = None,
    local_steps: str = "fixed",
    min_steps: int = 1,
    min_peers: int | None = None,
    grace_ms: float = 0,
) -> Settings:
    """Raises UsageError."""
    schedule = Schedule(
        count(sync_every, "sync_every", 1),
        count(num_fragments, "num_fragments", 1),
        count(delay, "fragment_sync_delay", 0),
    )
    code, feedback = _code(quantization, non_finite, error_feedback)
    overlaps = pipelined or schedule.delay > 0
    pace = _pace(schedule, local_steps, min_steps, min_peers, grace_ms)
    one_of(merge, "merge", ("mean", "rda"))
    clip = None if outer_momentum_clip is None else above_0(outer_momentum_clip, "outer_momentum_clip")
    samples.check(sampler, schedule, overlaps=overlaps, timed=pace.timed)
    how = _how(code, weighting, schedule, pace, overlaps, bucket_cap_mb)
    how = replace(how, together=how.together and sampler is None)
    # Peers may differ in sync_every where neither overlap nor speeds say when a window ends.
    timing = (pace,) if overlaps or pace.dynamic else (pace.quorum, grace_ms)
    numbers = numbers_of(code)
    alike = (kind, num_fragments, delay, alpha, staleness, lookahead, numbers, how.chunk, merge, clip)
    of_sampler = samples.described(sampler)
    copies = " copy" * (inner_state_on_join == "copy")
    return Settings(
        kind=kind,
        schedule=schedule,
        outer=outer,
        how=how,
        rules=Rules(merge=merge, gap=staleness == "gap", clip=clip, shares=weighting == "rarity"),
        weighting=weighting_of(weighting),
        described=f"{(*alike, *timing)} {described(weighting)} {non_finite}{copies}{of_sampler}",
        pipelined=pipelined,
        alpha=share(alpha, "fragment_update_alpha"),
        staleness=staleness,
        lookahead=lookahead,
        feedback=feedback,
        non_finite=non_finite,
        device=None if backup_device is None else _device(backup_device),
        pin_memory=pin_memory,
        sampler=sampler,
        inner_on_join=one_of(inner_state_on_join, "inner_state_on_join", ("keep", "zero", "copy")),
        verify_every=count(verify_every, "verify_every", 0),
        pace=pace,
    )


def _code(
    quantization: str | QuantConfig | None, non_finite: str, error_feedback: bool | None
) -> tuple[QuantConfig | None, bool]:
    """(what is sent, whether what it loses is fed back: by default where it is int4)"""
    code = _quantization(quantization, one_of(non_finite, "non_finite", ("raise", "skip")))
    feedback = code is not None and code.kind == "int4" if error_feedback is None else bool(error_feedback)
    if feedback and code is None:
        raise UsageError("error_feedback without quantization: nothing is lost that could be fed back")
    return code, feedback


def _pace(
    schedule: Schedule, local_steps: str, min_steps: int, min_peers: int | None, grace_ms: float
) -> PaceRules:
    return PaceRules(
        schedule.sync_every,
        dynamic=one_of(local_steps, "local_steps", ("fixed", "dynamic")) == "dynamic",
        least=count(min_steps, "min_steps", 1),
        quorum=None if min_peers is None else count(min_peers, "min_peers", 1),
        grace_s=not_negative(grace_ms, "grace_ms") / 1000,
    )


def _how(
    code: QuantConfig | None,
    weighting: str | Weighting,
    schedule: Schedule,
    pace: PaceRules,
    overlaps: bool,
    bucket_cap_mb: float | None,
) -> How:
    chunk = None if bucket_cap_mb is None else int(above_0(bucket_cap_mb, "bucket_cap_mb") * 2**20 / 4)
    plain = code is None and weighting == "uniform" and schedule.num_fragments == 1 and not overlaps
    together = plain and not pace.timed
    return How(together=together, overlaps=overlaps, quantization=code, chunk=chunk and max(1, chunk))


def _quantization(value: str | QuantConfig | None, non_finite: str) -> QuantConfig | None:
    if value is None:
        return None
    numbers_of(value)
    code = QuantConfig(value) if isinstance(value, str) else value  # type: ignore[arg-type]  # checked
    return replace(code, non_finite="skip") if non_finite == "skip" else code


def _device(value: str | torch.device) -> torch.device:
    try:
        device = torch.device(value)
        torch.zeros(1, device=device)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise UsageError(f"backup_device={value!r}: {str(error).splitlines()[0]}") from error
    if device.type == "meta":
        raise UsageError("backup_device='meta' holds no values; pass 'cpu', a device of yours, or None")
    return device


def one_of(value: str, name: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"{name}={value!r}: it is {' or '.join(map(repr, known))}")
    return value


def above_0(value: object, name: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not good:
        raise UsageError(f"{name}={value!r}: it is a number above 0")
    return float(value)  # type: ignore[arg-type]  # checked


def not_negative(value: object, name: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    if not good:
        raise UsageError(f"{name}={value!r}: it is a number, at least 0")
    return float(value)  # type: ignore[arg-type]  # checked


def share(value: object, name: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    if not good:
        raise UsageError(f"{name}={value!r}: it is a number from 0 to 1")
    return float(value)  # type: ignore[arg-type]  # checked


def count(value: object, name: str, low: int) -> int:
    """A whole number that is at least `low`."""
    try:
        number = low - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if number < low:
        raise UsageError(f"{name}={value!r}: it is a whole number, at least {low}")
    return number


# The outer optimizer of the DiLoCo paper (arXiv 2311.08105), and what is measured to bear a delay.
nesterov: OuterFactory = partial(torch.optim.SGD, lr=0.7, momentum=0.9, nesterov=True)
plain_sgd: OuterFactory = partial(torch.optim.SGD, lr=0.7)
averaging: OuterFactory = partial(torch.optim.SGD, lr=1.0)


def outer_or(value: OuterFactory | None, default: OuterFactory) -> OuterFactory:
    return default if value is None else value
