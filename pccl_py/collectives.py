"""Operations on tensors: all_reduce, broadcast, barrier. The half of Communicator that moves data."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypedDict, Unpack, cast, overload

from . import arguments, remaking
from .arguments import Algorithm, OnLoss, Op, Scope
from .block_calls import NAMES, BlockCalls
from .config import Config
from .cuda_staging import Staged, Staging, on_device
from .error_feedback import Residual
from .errors import UsageError
from .quantization import NO_QUANTIZATION, Numbers, QuantConfig, numbers_of
from .tensors import Operand, Tensor, operands
from .transfers import Transfers
from .work import Operation, OpInfo, Work

# As numbered by csrc/wire/types.hpp.
_ALL_REDUCE, _BROADCAST, _BARRIER = 1, 2, 3
_CALLS = {_ALL_REDUCE: "all_reduce", _BROADCAST: "broadcast", _BARRIER: "barrier"} | NAMES
_PAIR = 3  # a scope that no caller names

Tensors = Tensor | Sequence[Tensor]


class Poster(Protocol):
    """What of the core's Peer is needed here."""

    def post(
        self,
        *,
        call: int,
        scope: int,
        name: int,
        op: int,
        algorithm: int,
        root: int,
        weight: float | None,
        on_loss: int,
        seconds: float,
        quantization: Numbers,
        blocks: int,
        peers: int,
        ends: tuple[int, int],
        tensors: Any,
        residuals: Sequence[tuple[int, int]],
        keep: object,
    ) -> Operation: ...


class _Options(TypedDict, total=False):
    """What every operation takes, for the overloads; defaults and their meaning are all_reduce's."""

    tag: int | None
    scope: Scope
    on_loss: OnLoss
    timeout: float | None


class _ReduceOptions(_Options, total=False):
    out: Tensors | None
    algorithm: Algorithm
    quantization: str | QuantConfig | None
    error_feedback: Residual | None
    weight: float | None
    remake: Callable[[], object] | None


class Collectives(BlockCalls, Transfers):
    """Operations of a member. Who it is, and with whom, is said by the class that derives from this one."""

    _config: Config
    # By scope, and the two of a pair: the last one without a tag, and its thread.
    _untagged: dict[tuple[int, int, int], tuple[int, weakref.ref[Work]]]
    _staging: Staging | None = None  # from the first CUDA tensor on

    @property
    def _peer(self) -> Poster:
        raise NotImplementedError

    @overload
    def all_reduce(
        self,
        tensors: Tensors,
        op: Op = ...,
        *,
        async_op: Literal[False] = ...,
        **options: Unpack[_ReduceOptions],
    ) -> OpInfo: ...
    @overload
    def all_reduce(
        self,
        tensors: Tensors,
        op: Op = ...,
        *,
        async_op: Literal[True],
        **options: Unpack[_ReduceOptions],
    ) -> Work: ...
    def all_reduce(
        self,
        tensors: Tensors,
        op: Op = "sum",
        *,
        out: Tensors | None = None,
        tag: int | None = None,
        scope: Scope = "group",
        algorithm: Algorithm = "auto",
        quantization: str | QuantConfig | None = None,
        error_feedback: Residual | None = None,
        weight: float | None = None,
        on_loss: OnLoss = "retry",
        remake: Callable[[], object] | None = None,
        async_op: bool = False,
        timeout: float | None = None,
    ) -> OpInfo | Work:
        """Reduces elementwise over the group; every peer gets the same bits.

        tensors   a numpy array or torch tensor, or a list of them as one atomic operation: contiguous, of
                  float32/64/16, bfloat16, int8..64 or uint8..64, at any alignment, also empty. Reduced in
                  place, which costs a copy of the input, kept to restore it: as much memory again. CUDA
                  tensors travel through page-locked host memory; the call returns when they have been copied
                  there, which is after the current stream's kernels so far, also with async_op
        out       where the results go instead, one per input; an output may be exactly its input. Without
                  that copy: recommended for large tensors
        op        sum, avg, prod, min, max. 16-bit floats are reduced in float32; integers wrap around, and
                  their avg is the wrapped sum divided, toward zero
        algorithm how it travels, the same on all peers. "ring": 2 (P - 1) hops, the fewest bytes at any one
                  time. "direct": 2 hops and as many bytes, between all pairs. "exchange": 1 hop for what is
                  small, all send everything to all; over 64 KiB, 8 peers or with weights it is "direct".
                  "two-level": inside each host, then across hosts, for several peers on each of several
                  hosts; quantized it is "direct". These three need a link between each two peers, which
                  groups of up to 16 have where all can reach each other; else it is "ring". "auto": by size
        weight    op="avg" only: the result is sum(weight * tensor) / sum(weight), 0 where all weights are 0.
                  A weight is 0 or from 2**-64 to 2**64 (with float64 tensors alone, 2**-512 to 2**512): in
                  the float32 of products and sums (float64), less than 2**-126 loses bits
        tag       names the operation, 0 .. 2**32 - 3. None: numbered in the order of the calls of one thread
        scope     "run": commits in all groups or in none
        quantization  "int8", "uint8", "int4", "fp8", "bf16" or a QuantConfig: few bits per value on the way,
                  op sum or avg of floating dtypes, plan "direct" (values as they are where that is not
                  possible). NonFiniteError where a value is NaN or infinite
        error_feedback  `feedback["name"]` of an ErrorFeedback: what quantization loses is added next time
        on_loss   "retry": a peer that leaves costs one repetition among the survivors. "raise": PeerLost
        remake    in place without that copy: a function that fills the tensors anew, with the same values.
                  Where something ends an attempt, it is called in this thread, and the operation is repeated.
                  All peers pass one, or none; not with out, on_loss="raise" and async_op
        timeout   seconds until it fails on every peer; None: `operation_timeout_s` of the configuration
        async_op  True: returns a Work at once, and the tensors are the library's until its wait()

        Inputs are intact when it raises a CollectiveError, but with remake; `out` is undefined until it has
        returned.
        """
        plan = arguments.algorithm_number(algorithm)
        code = numbers_of(quantization)
        items = operands(tensors, out)
        if quantization is not None:
            arguments.check_quantized(op, items, skips=code[3])
        number = arguments.number_of(op, arguments.OPS, "op")
        factor = None if weight is None else arguments.weight_of(weight, op, items)

        def post(timeout: float | None, *, async_op: bool) -> Any:
            residuals: Sequence[tuple[int, int]] = ()
            if error_feedback is not None:
                residuals = _residuals_for(error_feedback, quantization, tensors, items)
            return self._post(
                _ALL_REDUCE,
                items,
                (_frozen(tensors), _frozen(out), error_feedback and error_feedback.memory),
                op=number,
                algorithm=plan,
                quantization=code,
                residuals=residuals,
                feedback=error_feedback,
                tag=tag,
                scope=scope,
                weight=factor,
                on_loss=on_loss,
                remade=remake is not None,
                async_op=async_op,
                timeout=timeout,
            )

        if remake is None:
            return cast(OpInfo | Work, post(timeout, async_op=async_op))
        arguments.check_remade(remake, out=out, on_loss=on_loss, async_op=async_op)
        seconds = arguments.seconds_of(timeout, self._config.operation_timeout_s)
        return remaking.until_committed(lambda left: post(left, async_op=True), remake, seconds)

    @overload
    def broadcast(
        self, tensors: Tensors, root: int, *, async_op: Literal[False] = ..., **options: Unpack[_Options]
    ) -> OpInfo: ...
    @overload
    def broadcast(
        self, tensors: Tensors, root: int, *, async_op: Literal[True], **options: Unpack[_Options]
    ) -> Work: ...
    def broadcast(
        self,
        tensors: Tensors,
        root: int,
        *,
        tag: int | None = None,
        scope: Scope = "group",
        on_loss: OnLoss = "retry",
        async_op: bool = False,
        timeout: float | None = None,
    ) -> OpInfo | Work:
        """Every peer of the group gets the tensors of the peer with rank `root`, in place. As all_reduce.

        Ranks move when somebody leaves: MismatchError where peers mean different roots, PeerLost when the
        root leaves.
        """
        ids = self._ids()
        peer = ids[arguments.whole(root, "root", 0, max(0, len(ids) - 1))] if ids else 0
        return self._post(
            _BROADCAST,
            operands(tensors, None),
            (_frozen(tensors), None),
            root=peer,
            tag=tag,
            scope=scope,
            on_loss=on_loss,
            async_op=async_op,
            timeout=timeout,
        )

    @overload
    def barrier(self, *, async_op: Literal[False] = ..., **options: Unpack[_Options]) -> OpInfo: ...
    @overload
    def barrier(self, *, async_op: Literal[True], **options: Unpack[_Options]) -> Work: ...
    def barrier(
        self,
        *,
        tag: int | None = None,
        scope: Scope = "group",
        on_loss: OnLoss = "retry",
        async_op: bool = False,
        timeout: float | None = None,
    ) -> OpInfo | Work:
        """Returns when every peer of the group (of the run, with scope="run") has called it."""
        return self._post(
            _BARRIER,
            [],
            (None, None),
            tag=tag,
            scope=scope,
            on_loss=on_loss,
            async_op=async_op,
            timeout=timeout,
        )

    def _post(
        self,
        call: int,
        items: list[Operand],
        keep: tuple[Any, ...],
        *,
        op: int = 1,
        algorithm: int = 1,
        root: int = 0,
        quantization: Numbers = NO_QUANTIZATION,
        residuals: Sequence[tuple[int, int]] = (),
        feedback: Residual | None = None,
        blocks: int = 0,
        peers: int = 0,
        ends: tuple[int, int] = (0, 0),
        what: str = "",
        tag: int | None,
        scope: Scope = "group",
        weight: float | None = None,
        on_loss: OnLoss = "retry",
        remade: bool = False,
        async_op: bool,
        timeout: float | None,
    ) -> OpInfo | Work:
        peer = self._peer
        scope_number = _PAIR if any(ends) else arguments.number_of(scope, arguments.SCOPES, "scope")
        name = arguments.name_of(tag)
        counted = (scope_number, *ends)
        if name == 0:
            self._check_order(counted)
        seconds = arguments.seconds_of(timeout, self._config.operation_timeout_s)
        loss = arguments.number_of(on_loss, arguments.ON_LOSS, "on_loss")
        staged = self._stage(call, items, keep[0], keep[1], seconds)
        operation = peer.post(
            call=call,
            scope=scope_number,
            name=name,
            op=op,
            root=root,
            weight=weight,
            on_loss=arguments.REMAKE if remade else loss,
            seconds=seconds,
            algorithm=algorithm,
            quantization=quantization,
            blocks=blocks,
            peers=peers,
            ends=ends,
            tensors=items if staged is None else staged.items,
            residuals=residuals,
            keep=(keep, staged),
        )
        weighted = weight is not None
        work = Work(operation, what or _CALLS[call], weighted=weighted, keep=(self, keep), staged=staged)
        if feedback is not None:
            feedback.posted(operation, work)
        if name == 0:
            self._untagged[counted] = (threading.get_ident(), weakref.ref(work))
        return work if async_op else work.finish()

    def _stage(
        self, call: int, items: list[Operand], inputs: Any, outputs: Any, seconds: float
    ) -> Staged | None:
        """CUDA tensors are in host memory when it returns."""
        if self._staging is None:
            if not on_device(inputs, outputs):
                return None
            self._staging = Staging(self._config.pinned_mb << 20)
        if outputs is None and call in (_ALL_REDUCE, _BROADCAST):
            outputs = inputs
        one_copy = call == _BROADCAST  # there, the undo copy is the only one
        return self._staging.stage(items, inputs, outputs, one_copy=one_copy, seconds=seconds)

    def _check_order(self, counted: tuple[int, int, int]) -> None:
        """Two threads that count calls together would pair them differently on every peer."""
        thread, last = self._untagged.get(counted, (0, None))
        work = last() if last is not None and thread != threading.get_ident() else None
        if work is not None and not work.is_completed():
            raise UsageError(
                "another thread has an operation without a tag in flight: give each thread its tags"
            )


def _frozen(tensors: Tensors | None) -> Any:
    """What must live until the operation has ended, whatever becomes of the caller's list."""
    return tuple(tensors) if isinstance(tensors, list) else tensors


def _residuals_for(
    feedback: Residual, quantization: object, tensors: Tensors, items: list[Operand]
) -> Sequence[tuple[int, int]]:
    if not isinstance(feedback, Residual):
        raise UsageError(f"error_feedback={feedback!r}: pass feedback['name'] of an ErrorFeedback")
    if quantization is None:
        raise UsageError("error_feedback without quantization: nothing is lost that could be fed back")
    return feedback.prepare(tensors, items)
