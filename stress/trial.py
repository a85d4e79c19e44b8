"""One all-reduce of a churn peer: its memory, the call, and what must hold afterwards."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

import pccl_py as pccl

from . import oracles
from .memory import Array, Guarded
from .oracles import Kind, Name
from .windows import OperationPlan, TensorPlan


@dataclass
class _Tensor:
    name: Name
    kind: Kind
    given: Guarded
    out: Guarded  # `given` where it is reduced in place
    original: Array


class Trial:
    """A call of the operation `plan` in window `window` by peer `me`; `retry` counts calls of the same
    operation.
    """

    def __init__(
        self,
        plan: OperationPlan,
        window: int,
        me: int,
        retry: int,
        *,
        sabotage: bool = False,
        shared: bool = False,
    ) -> None:
        self.plan = plan
        self.key = [window, plan.slot, plan.scope, retry]
        self.retry = retry
        self._me, self._shared = me, shared
        self._name = Name(window, plan.slot, retry, 0)
        self._tensors = [self._tensor(index, tensor) for index, tensor in enumerate(plan.tensors)]
        if sabotage:
            for tensor in self._tensors:
                tensor.given.array[:1] += np.array(1, tensor.kind.dtype)

    def _tensor(self, index: int, plan: TensorPlan) -> _Tensor:
        name, kind = self._name._replace(tensor=index), Kind(plan.dtype, self.plan.op, self.plan.weighted)
        given = Guarded(plan.dtype, plan.count, plan.shift, shared=self._shared)
        original = oracles.contribution(self._me, name, kind, plan.count)
        given.array[:] = original
        out = given
        if not plan.in_place:
            out = Guarded(plan.dtype, plan.count, 63 - plan.shift, shared=self._shared)
        return _Tensor(name, kind, given, out, original)

    def post(self, comm: pccl.Communicator, tag: int | None) -> pccl.Work:
        inputs = [tensor.given.array for tensor in self._tensors]
        outputs = [tensor.out.array for tensor in self._tensors]
        all_in_place = all(tensor.out is tensor.given for tensor in self._tensors)
        work = comm.all_reduce(
            inputs,
            self.plan.op,
            out=None if all_in_place else outputs,
            tag=tag,
            algorithm=self.plan.algorithm,
            scope=self.plan.scope,
            weight=oracles.weight_of(self._me, self._name) if self.plan.weighted else None,
            on_loss="raise" if self.plan.raise_on_loss else "retry",
            async_op=True,
        )
        assert isinstance(work, pccl.Work)
        return work

    def faults_of_result(self, info: pccl.OpInfo) -> list[str]:
        """What is wrong although the call succeeded."""
        contributors = info.contributors
        faults = []
        if self._me not in contributors or len(set(contributors)) != len(contributors):
            faults.append(f"contributors {list(contributors)} at peer {self._me}")
        for tensor in self._tensors:
            if contributors:
                fault = oracles.compare(tensor.out.array, contributors, tensor.name, tensor.kind)
                faults += [] if fault is None else [fault]
            if tensor.out is not tensor.given and not np.array_equal(tensor.given.array, tensor.original):
                faults.append(f"the input of an operation out of place was changed: {tensor.kind}")
        if self.plan.weighted and info.weight != sum(oracles.weight_of(p, self._name) for p in contributors):
            faults.append(f"the sum of weights of peers {list(contributors)} is reported as {info.weight}")
        return faults + self._faults_of_guards()

    def faults_of_failure(self) -> list[str]:
        """What is wrong after the call has failed: inputs must be intact."""
        faults = []
        for tensor in self._tensors:
            wrong = np.flatnonzero(tensor.given.array != tensor.original)
            if wrong.size:
                where = f"{wrong.size} elements from {wrong[0]} to {wrong[-1]}"
                how = "in place" if tensor.out is tensor.given else "out of place"
                text = f"the input was not restored after a failure {how}: {where} of"
                faults.append(f"{text} {tensor.kind}[{tensor.original.size}]")
        return faults + self._faults_of_guards()

    def _faults_of_guards(self) -> list[str]:
        intact = all(t.given.guards_intact() and t.out.guards_intact() for t in self._tensors)
        return [] if intact else [f"memory outside a tensor was written: {self.plan}"]

    def digest(self) -> int:
        """Of the results: equal on all peers of the group."""
        value = 0
        for tensor in self._tensors:
            value = zlib.crc32(tensor.out.array.tobytes(), value)
        return value
