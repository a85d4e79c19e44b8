"""An operation in flight, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .arguments import wait_of
from .errors import OperationTimeout, from_code

# After Ctrl-C in a blocking call: how long its cancellation may take before the exception goes on regardless.
CANCEL_S = 10.0


class Operation(Protocol):
    """What the core gives for a posted operation."""

    def wait(self, seconds: float) -> bool: ...
    def done(self) -> bool: ...
    def cancel(self) -> None: ...
    def notify(self, completions: Any, number: int) -> None: ...
    def result(self) -> tuple[int, str, list[int], int, int, int, int, float, float]: ...


@dataclass(frozen=True, slots=True)
class OpInfo:
    """A committed operation; `contributors` and `waiting` are the same on every peer.

    contributors: ids of the peers whose input is in the result, of the caller's group.
    bytes_sent, bytes_received: tensor data between this peer and others, over all attempts.
    seconds: from the call to the commit.    attempts: 1, and one more for each view that interrupted it.
    waiting: islands at the door when it committed.    weight: sum of all weights, None where none were given.
    """

    contributors: tuple[int, ...]
    bytes_sent: int
    bytes_received: int
    seconds: float
    attempts: int
    waiting: int
    weight: float | None


class Work:
    """One operation that was started with `async_op=True`. It keeps its tensors, and its communicator, alive.

    Any thread may wait; the tensors are the library's until a wait has returned or raised. Keep the Work
    until then: one that is dropped while it runs is cancelled on every peer.
    """

    __slots__ = ("__weakref__", "_failure", "_info", "_keep", "_operation", "_weighted", "_what")

    def __init__(self, operation: Operation, what: str, *, weighted: bool, keep: object) -> None:
        self._operation = operation
        self._what = what
        self._weighted = weighted
        self._keep: object = keep
        self._info: OpInfo | None = None
        self._failure: tuple[int, str] | None = None

    def wait(self, timeout: float | None = None) -> OpInfo:
        """Returns when the operation has committed, and raises what ended it otherwise.

        `timeout` in seconds, 0 to only look: OperationTimeout when it still runs then; it goes on and may be
        waited for again. Ctrl-C leaves it running too.
        """
        seconds = wait_of(timeout)
        if self._info is None and self._failure is None:
            if not self._operation.wait(seconds):
                raise OperationTimeout(
                    f"{self._what} still runs after {seconds:g} s: wait again, or cancel() it"
                )
            self._settle()
        if self._failure is not None:
            raise from_code(*self._failure)
        assert self._info is not None
        return self._info

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
        if self._info is None and self._failure is None and self._operation.done():
            self._settle()
        return self._info

    def finish(self) -> OpInfo:
        """wait() for callers that hold no Work: when it is interrupted, nobody could wait for it again."""
        try:
            return self.wait()
        except BaseException:
            if not self._operation.done():
                self._operation.cancel()
                self._operation.wait(CANCEL_S)
            raise

    def _settle(self) -> None:
        code, text, contributors, waiting, attempts, sent, received, seconds, weight = (
            self._operation.result()
        )
        if code != 0:
            self._failure = (code, text)
        else:
            total = weight if self._weighted else None
            self._info = OpInfo(tuple(contributors), sent, received, seconds, attempts, waiting, total)
        self._keep = None

    def __repr__(self) -> str:
        state = "running"
        if self._operation.done():
            state = "failed" if self.info is None else "committed"
        return f"<Work {self._what}: {state}>"
