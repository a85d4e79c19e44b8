"""An operation in flight, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .arguments import wait_of
from .cuda_staging import Staged
from .errors import OperationTimeout, PcclError, from_code

# After Ctrl-C in a blocking call: how long its cancellation may take before the exception goes on regardless.
CANCEL_S = 10.0
_COMMITTED = "_pccl_committed"


class Result(NamedTuple):
    """What the core says of an operation that has ended; not 0 as code: it failed."""

    code: int
    text: str
    contributors: list[int]
    waiting: int
    attempts: int
    bytes_sent: int
    bytes_received: int
    seconds: float
    weight: float
    seconds_to_result: float
    skipped: list[int]
    fed_back: bool


class Operation(Protocol):
    """What the core gives for a posted operation."""

    def wait(self, seconds: float) -> bool: ...
    def done(self) -> bool: ...
    def cancel(self) -> None: ...
    def notify(self, completions: Any, number: int) -> None: ...
    def result(self) -> tuple[Any, ...]: ...


@dataclass(frozen=True, slots=True)
class OpInfo:
    """A committed operation; `contributors` and `waiting` are the same on every peer.

    contributors: ids of the peers whose input is in the result, of the caller's group.
    bytes_sent, bytes_received: tensor data between this peer and others, over all attempts.
    seconds: from the call to the commit.    attempts: 1, and one more for each view that interrupted it.
    waiting: islands at the door when it committed.    weight: sum of all weights, None where none were given.
    seconds_to_result: from the call until this peer held the whole result, before the commit.
    skipped: ids of the peers left out as their values were not finite (non_finite="skip"), on every peer.
    """

    contributors: tuple[int, ...]
    bytes_sent: int
    bytes_received: int
    seconds: float
    attempts: int
    waiting: int
    weight: float | None
    seconds_to_result: float = 0.0
    skipped: tuple[int, ...] = ()


class Work:
    """One operation that was started with `async_op=True`. It keeps its tensors, and its communicator, alive.

    Any thread may wait; the tensors are the library's until a wait has returned or raised. Keep the Work
    until then: one that is dropped while it runs is cancelled on every peer.
    """

    __slots__ = (
        "__weakref__",
        "_failure",
        "_info",
        "_keep",
        "_operation",
        "_result",
        "_staged",
        "_weighted",
        "_what",
    )

    def __init__(
        self,
        operation: Operation,
        what: str,
        *,
        weighted: bool,
        keep: object,
        staged: Staged | None = None,
    ) -> None:
        self._operation = operation
        self._what = what
        self._weighted = weighted
        self._keep: object = keep
        self._staged = staged
        self._result: Result | None = None  # of one that has committed; its info is made when asked for
        self._info: OpInfo | None = None
        self._failure: tuple[int, str] | None = None

    def wait(self, timeout: float | None = None, *, block: bool = False) -> OpInfo:
        """Returns when the operation has committed, and raises what ended it otherwise.

        `timeout` in seconds, 0 to only look: OperationTimeout when it still runs then; it goes on and may be
        waited for again. Ctrl-C leaves it running too.

        CUDA tensors have their results for all that the current stream is given from then on; `block`: for
        everybody, when it returns. Without a wait they get none.
        """
        self.until_committed(timeout, block=block)
        info = self.info
        assert info is not None
        return info

    def until_committed(self, timeout: float | None = None, *, block: bool = False) -> Sequence[int]:
        """As wait(), for those who only want to know who took part: its `contributors`."""
        seconds = wait_of(timeout)
        if self._result is None and self._failure is None:
            if not self._operation.wait(seconds):
                raise OperationTimeout(
                    f"{self._what} still runs after {seconds:g} s: wait again, or cancel() it"
                )
            self._settle()
        if self._staged is not None:
            self._settle_staged(self._staged, seconds, block)
        if self._failure is not None:
            raise from_code(*self._failure)
        assert self._result is not None
        return self._result.contributors

    def is_completed(self) -> bool:
        """Whether wait() would return, or raise, at once."""
        return self._operation.done()

    def notify(self, completions: Any, number: int) -> None:
        """Puts `number` into the core's `completions` when it ends, which may be at once."""
        self._operation.notify(completions, number)

    def cancel(self) -> None:
        """Ends the operation with Cancelled on every peer, unless it has committed. wait() tells which."""
        self._operation.cancel()

    @property
    def info(self) -> OpInfo | None:
        """What wait() returned; None while the operation runs and when it failed."""
        if self._result is None and self._failure is None and self._operation.done():
            self._settle()
        if self._info is None and self._result is not None:
            self._info = _info_of(self._result, self._weighted)
        return self._info

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received, also of one that failed. Once it has ended."""
        result = Result(*self._operation.result())
        return result.bytes_sent, result.bytes_received

    def finish(self) -> OpInfo:
        """wait() for callers that hold no Work: when it is interrupted, nobody could wait for it again.

        Where it has committed all the same, the exception says so: see `committed_before`.
        """
        try:
            return self.wait()
        except PcclError:
            raise
        except BaseException as error:
            if not self._operation.done():
                self._operation.cancel()
                self._operation.wait(CANCEL_S)
            if self._operation.done() and self.info is not None:
                setattr(error, _COMMITTED, self.wait(0.0))
                error.add_note(f"{self._what} has committed: its results are there, here as on all peers")
            raise

    def _settle_staged(self, staged: Staged, seconds: float, block: bool) -> None:
        if self._failure is not None:
            return staged.discard()
        staged.deliver()
        if block:
            staged.synchronize(seconds)

    def _settle(self) -> None:
        result = Result(*self._operation.result())
        if result.code != 0:
            self._failure = (result.code, result.text)
        else:
            self._result = result
        self._keep = None

    def __repr__(self) -> str:
        state = "running"
        if self._operation.done():
            state = "failed" if self.info is None else "committed"
        return f"<Work {self._what}: {state}>"


def committed_before(error: BaseException) -> OpInfo | None:
    """Of an operation that `error` interrupted too late to cancel it: all peers go on behind it."""
    return getattr(error, _COMMITTED, None)


def _info_of(result: Result, weighted: bool) -> OpInfo:
    return OpInfo(
        tuple(result.contributors),
        result.bytes_sent,
        result.bytes_received,
        result.seconds,
        result.attempts,
        result.waiting,
        result.weight if weighted else None,
        result.seconds_to_result,
        tuple(result.skipped),
    )
