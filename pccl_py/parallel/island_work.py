"""An operation of an island under way: it begins without a word between the ranks, and ends with one."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import PcclError
from ..work import OpInfo, Work
from .island_bond import ENDS, Bond


class IslandWork:
    """What Island.all_reduce(async_op=True) returns. The tensors are the library's until wait() has returned
    or raised. Keep it until then: one that is dropped while it runs is cancelled on every peer.

    All ranks of the island begin it and wait() for it in the same places of their calls. Between the two a
    rank does not know what its siblings know: one that could not begin, as the island is out of the run, says
    so in its wait() too, lest the others sit in a collective of the model to which it does not come.

    post    begins the operation on this rank
    """

    def __init__(self, bond: Bond, post: Callable[[], Work]) -> None:
        self._bond = bond
        self._work: Work | None = None
        self._info: OpInfo | None = None
        self._failure: PcclError | None = None
        try:
            self._work = post()
        except ENDS as error:
            self._failure = error

    def wait(self) -> OpInfo:
        """Returns when the operation has committed on all ranks of all islands, and raises, on all ranks of
        this one alike, what ended it otherwise. Ctrl-C leaves it running: wait again."""
        if self._info is None:
            self._info = self._bond.jointly(self._ended)
            self._work = None
        return self._info

    def _ended(self) -> OpInfo:
        if self._work is None:
            assert self._failure is not None
            raise self._failure
        return self._work.wait()

    def is_completed(self) -> bool:
        """Whether it has ended on this rank. Siblings may find otherwise: nothing that all ranks do in common
        may depend on it."""
        return self._work is None or self._work.is_completed()

    def __repr__(self) -> str:
        return f"<IslandWork: {self._work if self._work is not None else self._info or self._failure}>"
