"""The backend "pccl": torch's ProcessGroup on a Group. Each method translates its arguments, nothing more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch

from ..errors import PcclError
from . import in_blocks, whole_calls
from .errors import translated
from .group import Group
from .messages import recv, recv_any, send
from .pending import Pending
from .rank_tables import stand_alone
from .reconfigure import Place
from .torch_names import ErrorType, ProcessGroup, dist
from .torch_work import PcclWork, seconds_of

Tensors = list[torch.Tensor]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _op(opts: Any, default: Any = dist.ReduceOp.SUM) -> Any:
    """Of an options object, or passed as it is."""
    if opts is None:
        return default
    return getattr(opts, "reduceOp", opts)


def _limit(opts: Any, timeout: timedelta | None = None) -> float | None:
    return seconds_of(timeout if timeout is not None else getattr(opts, "timeout", None))


def _root(opts: Any) -> int:
    return int(getattr(opts, "rootRank", opts))


class _Devices(list[torch.device]):
    """torch's flight recorder leaves groups alone whose devices are none, and fails on others that are no
    C++ backend (2.15); all else looks at what is in here."""

    def __bool__(self) -> bool:
        return False


class PcclProcessGroup(ProcessGroup):  # type: ignore[misc]
    """`group`: whose ranks these are; `group.member` is its Communicator.

    Ranks, size and divisors follow the deaths of others, in the call that raises them (see group.py).
    """

    def __init__(self, group: Group, place: Place) -> None:
        super().__init__(group.rank, group.size)
        self.group = group
        self._meet_again = place
        self.meeting: Any = None  # where its peers, and those of its parts, meet
        self.part: Any = None  # makes those
        self.parts_made: Counter[str] = Counter()  # by the ids of their peers
        self._name = group.name
        self._desc = ""
        self._together: list[Pending] | None = None

    # ---- who -----------------------------------------------------------------------------------------------

    def rank(self) -> int:
        return self.group.rank

    def size(self) -> int:
        return self.group.size

    getRank, getSize = rank, size

    def name(self) -> str:
        return "pccl"

    getBackendName = _get_backend_name = name

    @property
    def group_name(self) -> str:
        return self._name

    @property
    def group_desc(self) -> str:
        return self._desc

    def getGroupName(self) -> str:
        return self._name

    def getGroupDesc(self) -> str:
        return self._desc

    def _set_group_name(self, name: str) -> None:
        self._name = name

    def _set_group_desc(self, text: str) -> None:
        self._desc = text

    setGroupName, setGroupDesc = _set_group_name, _set_group_desc

    # torch asks a backend of each device for what it can; here one object is all of them.
    supports_splitting = True
    supports_coalescing = supports_time_estimate = False
    options = None  # of the group's backend: a part that is split off begins with none

    def _get_backend(self, device: Any) -> PcclProcessGroup:
        return self

    @property
    def _device_types(self) -> list[torch.device]:
        return _Devices((torch.device("cpu"), torch.device("cuda")))

    def split_group(
        self,
        ranks: Sequence[int],
        timeout: timedelta | None = None,
        opts: Any = None,
        group_name: str | None = None,
        group_desc: str | None = None,
        device_types: Any = None,
    ) -> PcclProcessGroup | None:
        """The group of these ranks of this one, which all of them call; None where the caller is not one."""
        if self.rank() not in ranks:
            return None
        try:
            part: PcclProcessGroup = self.part(self, list(ranks), str(group_name), timeout, opts)
        except PcclError as error:
            raise translated(error) from error
        part._set_group_desc(group_desc or f"{self._desc}:split")
        return part

    def get_group_store(self) -> None:
        """Its peers meet at the master."""

    def _set_sequence_number_for_group(self) -> None:
        """The core numbers operations by itself."""

    def set_timeout(self, timeout: timedelta) -> None:
        self.group.timeout_s = seconds_of(timeout)

    _set_default_timeout = set_timeout

    def shutdown(self) -> None:
        """Leaves the run."""
        self.abort()
        self.meeting = self._meet_again.meeting = None

    def abort(self) -> None:
        """Leaves the run; what is in flight ends here. The group can be reconfigured."""
        self.group.leave()

    # ---- other peers ---------------------------------------------------------------------------------------

    supports_reconfigure = True

    def get_reconfigure_handle(self) -> str:
        """For those who decide on members; see reconfigure.py. Ask again before each reconfigure()."""
        try:
            return self._meet_again.handle(self.group)
        except PcclError as error:
            raise translated(error) from error

    def reconfigure(self, opts: Any) -> PcclWork:
        """`opts`: uuid, handles, timeout. Returns when this same object is a group of those members. Where
        one of them does not come it raises, and is the group that it was."""
        try:
            meeting, member = self._meet_again.meet(opts, self.group)
        except PcclError as error:
            raise translated(error) from error
        self.meeting = self._meet_again.meeting = meeting
        self.group.become(member)
        stand_alone(self)
        return PcclWork([])

    def get_error(self) -> Any:
        """SUCCESS while all are there of those that it was formed of."""
        if self.group.ids and not self.group.is_whole:
            return ErrorType.REMOTE_ERROR
        return ErrorType.SUCCESS

    def update_topology(self, timeout: float | None = None) -> bool:
        """A step boundary that all ranks call: newcomers come in. Whether the membership has changed."""
        return self.group.update_topology(timeout)

    # ---- begun ---------------------------------------------------------------------------------------------

    def _begin(self, begin: Any, *args: Any) -> PcclWork:
        try:
            pending = begin(*args)
        except PcclError as error:
            raise translated(error) from error
        if self._together is not None:
            self._together.append(pending)
        return PcclWork([pending])

    def _start_coalescing(self, device: torch.device) -> None:
        self._together = []

    def _end_coalescing(self, device: torch.device) -> PcclWork:
        parts, self._together = self._together or [], None
        return PcclWork(parts)

    # ---- whole tensors -------------------------------------------------------------------------------------

    def allreduce(self, tensors: Any, opts: Any = None, timeout: timedelta | None = None) -> PcclWork:
        return self._begin(
            whole_calls.all_reduce, self.group, _listed(tensors), _op(opts), _limit(opts, timeout)
        )

    allreduce_coalesced = allreduce

    def reduce(self, tensors: Any, opts: Any, op: Any = None, timeout: timedelta | None = None) -> PcclWork:
        """(tensors, options) or (tensor, root, op)."""
        how = _op(opts) if hasattr(opts, "reduceOp") else _op(op)
        return self._begin(
            whole_calls.reduce, self.group, _listed(tensors), _root(opts), how, _limit(opts, timeout)
        )

    def broadcast(self, tensors: Any, opts: Any, timeout: timedelta | None = None) -> PcclWork:
        return self._begin(
            whole_calls.broadcast, self.group, _listed(tensors), _root(opts), _limit(opts, timeout)
        )

    def barrier(self, opts: Any = None, timeout: timedelta | None = None) -> PcclWork:
        return self._begin(whole_calls.barrier, self.group, _limit(opts, timeout))

    # ---- in blocks -----------------------------------------------------------------------------------------

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None) -> PcclWork:
        """(lists of outputs, inputs) or (outputs, input)."""
        lists = outputs if outputs and isinstance(outputs[0], list | tuple) else [outputs]
        return self._begin(in_blocks.all_gather_lists, self.group, lists, _listed(inputs), _limit(opts))

    def allgather_coalesced(self, outputs: Sequence[Tensors], inputs: Tensors, opts: Any = None) -> PcclWork:
        """outputs[r][i]: input i of rank r, the other way round than with allgather."""
        by_input = [list(each) for each in zip(*outputs, strict=True)]
        return self._begin(in_blocks.all_gather_lists, self.group, by_input, inputs, _limit(opts))

    def all_gather_single(self, output: torch.Tensor, own: torch.Tensor, opts: Any = None) -> PcclWork:
        return self._begin(in_blocks.all_gather, self.group, [output], [own], _limit(opts))

    _allgather_base = all_gather_single

    def all_gather_single_coalesced(self, outputs: Tensors, inputs: Tensors, opts: Any = None) -> PcclWork:
        return self._begin(in_blocks.all_gather, self.group, outputs, inputs, _limit(opts))

    allgather_into_tensor_coalesced = all_gather_single_coalesced

    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any = None) -> PcclWork:
        """(outputs, lists of inputs) or (output, inputs)."""
        lists = inputs if inputs and isinstance(inputs[0], list | tuple) else [inputs]
        return self._begin(
            in_blocks.reduce_scatter_lists, self.group, _listed(outputs), lists, _op(opts), _limit(opts)
        )

    def reduce_scatter_single(self, output: torch.Tensor, own: torch.Tensor, opts: Any = None) -> PcclWork:
        return self._begin(in_blocks.reduce_scatter, self.group, [output], [own], _op(opts), _limit(opts))

    _reduce_scatter_base = reduce_scatter_single

    def reduce_scatter_single_coalesced(
        self, outputs: Tensors, inputs: Tensors, opts: Any = None
    ) -> PcclWork:
        return self._begin(in_blocks.reduce_scatter, self.group, outputs, inputs, _op(opts), _limit(opts))

    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced

    def gather(self, outputs: Any, inputs: Any, opts: Any, timeout: timedelta | None = None) -> PcclWork:
        """(lists of outputs, inputs, options) or (outputs, input, root)."""
        lists = outputs[0] if outputs and isinstance(outputs[0], list | tuple) else outputs
        own = _listed(inputs)[0]
        return self._begin(
            in_blocks.gather, self.group, lists or None, own, _root(opts), _limit(opts, timeout)
        )

    def scatter(self, outputs: Any, inputs: Any, opts: Any, timeout: timedelta | None = None) -> PcclWork:
        """(outputs, lists of inputs, options) or (output, inputs, root)."""
        lists = inputs[0] if inputs and isinstance(inputs[0], list | tuple) else inputs
        out = _listed(outputs)[0]
        return self._begin(
            in_blocks.scatter, self.group, out, lists or None, _root(opts), _limit(opts, timeout)
        )

    def all_to_all_single(
        self,
        output: torch.Tensor,
        own: torch.Tensor,
        output_splits: list[int],
        input_splits: list[int],
        opts: Any = None,
    ) -> PcclWork:
        """Splits along the first dimension; without them, equal blocks."""
        if not output_splits and not input_splits:
            return self._begin(in_blocks.all_to_all, self.group, output, own, _limit(opts))
        return self._begin(
            in_blocks.all_to_all_split, self.group, output, own, output_splits, input_splits, _limit(opts)
        )

    alltoall_base = all_to_all_single

    def alltoall(self, outputs: Tensors, inputs: Tensors, opts: Any = None) -> PcclWork:
        return self._begin(in_blocks.all_to_all_uneven, self.group, outputs, inputs, _limit(opts))

    # ---- between two ---------------------------------------------------------------------------------------

    def send(self, tensors: Tensors, dst: int, tag: int) -> PcclWork:
        return self._begin(send, self.group, _listed(tensors), dst, tag)

    def recv(self, tensors: Tensors, src: int, tag: int) -> PcclWork:
        return self._begin(recv, self.group, _listed(tensors), src, tag)

    def recv_anysource(self, tensors: Tensors, tag: int) -> PcclWork:
        return self._begin(recv_any, self.group, _listed(tensors), tag)
