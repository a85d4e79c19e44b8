"""An operation in flight as torch sees it: the core's, and what has to be done once when that has ended."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import OperationTimeout, PcclError
from ..work import Work

if TYPE_CHECKING:
    from .group import Group


class Pending:
    """`wait()` returns when the outputs hold the result. Any thread, any number of times."""

    def __init__(
        self,
        group: Group,
        work: Work,
        outputs: Sequence[torch.Tensor],
        finish: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.outputs = list(outputs)
        self.work = work
        self._group = group
        self._finish = tuple(finish)
        self._lock = threading.Lock()
        self._error: Exception | None = None
        self._ended = False

    def done(self) -> bool:
        return self._ended or self.work.is_completed()

    def error(self) -> Exception | None:
        """What ended it, once it is done; None while it runs and where it succeeded."""
        if self.done() and not self._ended:
            self._conclude()
        return self._error

    def wait(self, timeout: float | None = None) -> None:
        """Raises what ended the operation, an exception of this package and of torch.distributed alike."""
        if not self._ended:
            self._wait(timeout)
        if self._error is not None:
            raise self._error

    def _wait(self, timeout: float | None) -> None:
        try:
            self.work.until_committed(timeout, block=True)
        except OperationTimeout as error:
            if not self.work.is_completed():  # it still runs: only this wait is over
                raise self._group.explained(error) from error
        except PcclError:
            pass
        self._conclude()

    def _committed(self, contributors: Sequence[int]) -> None:
        self._group.committed(contributors)

    def _conclude(self) -> None:
        with self._lock:
            if self._ended:
                return
            try:
                here = self.work.until_committed(block=True)  # it has: what it holds for a device is there
                for step in self._finish:
                    step()
                self._committed(here)
            except PcclError as error:
                self._error = self._group.explained(error)
            except Exception as error:
                self._error = error
            self._finish = ()
            self._ended = True
