"""torchft's CheckpointTransport on a group of ours: a replica that comes gets the state of one that has it,
over the links that average gradients, with their encryption and their notice of deaths. No pickle.

To each receiver go three messages: sizes, a description (the tree of the state as tagged JSON, and of each
tensor dtype, shape and checksum), and all tensors as one operation, of which all arrives or nothing.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch

from ..arguments import TAG_MAX
from ..checkpoint.native import crc32
from ..errors import DamagedError, PeerLost, ProtocolError, StateError, UsageError
from ..staging import fence
from ..state.boxed import local_of
from ..values import bounded_json, dtypes, names, tagged
from ..values.limits import RANK_MAX
from . import messages
from .pending import Pending
from .process_group import PcclProcessGroup
from .torch_work import seconds_of

logger = logging.getLogger("pccl_py")
METADATA = "pccl_py checkpoint transport 1"
TAG = TAG_MAX - 11  # of messages that are no user's
TENSORS_MAX = 16_000  # of one operation
WORDS_MAX = 256 << 20
T = TypeVar("T")


class Sent(NamedTuple):
    """`words`: the description; `tensors`: what it describes, dense local memory, in its order."""

    words: bytes
    tensors: list[torch.Tensor]


class CheckpointTransport:
    """`Manager(pg=group, checkpoint_transport=CheckpointTransport(group), ...)`, `group` being what
    new_reconfigurable_group() returned: states are healed over it.

    state_dict    returns this replica's own state, a tree as the sender's (a Manager's is {"user":
                  {"default": ...}, "torchft": ...}): tensors that it has under the same name, with the same
                  dtype and shape, are written in place, on their device. Others are new, on the CPU
    timeout       seconds, where a call gives none

    A state is dicts, lists, tensors and plain values, as in a checkpoint. DTensors need `state_dict`: of each
    the local part travels, which replicas have alike. Raises StateError for what cannot travel or does not
    fit, DamagedError for bytes that changed on the way, OperationTimeout, PeerLost; what was being written in
    place is to be received again then.
    """

    def __init__(
        self,
        group: PcclProcessGroup,
        *,
        state_dict: Callable[[], Any] | None = None,
        timeout: timedelta | float = 60.0,
    ) -> None:
        if not isinstance(group, PcclProcessGroup):
            raise UsageError(f"group is a {type(group).__name__}: pass what new_reconfigurable_group() gave")
        self._group, self._state_dict = group.group, state_dict
        self._timeout_s = seconds_of(timeout) or 60.0

    def metadata(self) -> str:
        """That the receiver's transport is one like this."""
        return METADATA

    def send_checkpoint(
        self, dst_ranks: Sequence[int], step: int, state_dict: Any, timeout: timedelta | float | None = None
    ) -> None:
        """To these ranks of the group; returns when they have it, so that it may be changed. One that dies
        meanwhile is left out."""
        until = time.monotonic() + (seconds_of(timeout) or self._timeout_s)
        sent = described(step, state_dict)
        head = torch.tensor([step, len(sent.words)])
        words = torch.frombuffer(bytearray(sent.words), dtype=torch.uint8)
        posted: list[tuple[int, Pending]] = []
        for rank in dst_ranks:
            for tensors in ([head], [words], *_batches(sent.tensors)):
                posted.append((rank, messages.send(self._group, tensors, rank, TAG)))
        for rank, message in posted:
            try:
                _await(message, until)
            except PeerLost as error:
                logger.warning("rank %d is gone and gets no state: %s", rank, error)

    def recv_checkpoint(
        self, src_rank: int, metadata: str, step: int, timeout: timedelta | float | None = None
    ) -> Any:
        """What that rank sends as `step`."""
        if metadata != METADATA:
            raise UsageError(f"the sender's transport is {metadata!r:.80}, not this one: use one on all")
        until = time.monotonic() + (seconds_of(timeout) or self._timeout_s)
        head = torch.zeros(2, dtype=torch.int64)
        _await(messages.recv(self._group, [head], src_rank, TAG), until)
        told, count = head.tolist()
        if not 0 < count <= WORDS_MAX:
            raise ProtocolError(f"rank {src_rank} announces a description of {count} bytes")
        words = torch.empty(count, dtype=torch.uint8)
        _await(messages.recv(self._group, [words], src_rank, TAG), until)
        own = None if self._state_dict is None else self._state_dict()
        arriving = Arriving(words.numpy().tobytes(), own, f"what rank {src_rank} sends")
        fence.before_write()
        for tensors in _batches(arriving.tensors):
            _await(messages.recv(self._group, tensors, src_rank, TAG), until)
        arriving.check()
        if told != step:
            raise StateError(f"rank {src_rank} sends step {told}, not {step}")
        return arriving.tree

    def disallow_checkpoint(self) -> None:
        """Nothing is under way when send_checkpoint() has returned."""

    def shutdown(self, wait: bool = True) -> None:
        """The group is not this object's."""


def _await(message: Pending, until: float) -> None:
    message.wait(max(until - time.monotonic(), 0.001))


def _batches(tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    return [tensors[at : at + TENSORS_MAX] for at in range(0, len(tensors), TENSORS_MAX)]


def described(step: int, state: Any) -> Sent:
    """Raises StateError, with the path of what cannot be sent."""
    about: dict[str, bounded_json.Json] = {}
    tensors: list[torch.Tensor] = []

    def note(path: tagged.Path, value: Any) -> str | None:
        if not isinstance(value, torch.Tensor):
            return None
        name, local = names.join(path), local_of(value).detach()
        dtype = dtypes.of_torch(local.dtype)
        if dtype is None or name in about or local.layout != torch.strided:
            raise StateError(f"{name} is {local.dtype}, {local.layout}, or there twice: it cannot be sent")
        about[name] = [dtype, list(local.shape), checksum(local), local is not value and _is_part(value)]
        if local.numel():
            tensors.append(local)
        return name

    tree = tagged.encode(state, tensor=note)
    return Sent(bounded_json.dumps({"step": step, "tree": tree, "tensors": about}), tensors)


def _is_part(value: Any) -> bool:
    return hasattr(value, "_local_tensor")


def checksum(tensor: torch.Tensor) -> int:
    """CRC-32 of its values in their order."""
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return crc32(dense.reshape(-1).view(torch.uint8).numpy().data) if dense.numel() else 0


class Arriving:
    """Memory for what a description tells of: the own state's, or new. `tensors`: to be filled, in its order;
    `tree`: the state, once `check()` has passed."""

    def __init__(self, words: bytes, own: Any, what: str) -> None:
        self._what = what
        told = bounded_json.loads(words, what=what, bytes_max=WORDS_MAX)
        if not isinstance(told, dict) or told.keys() != {"step", "tree", "tensors"}:
            raise DamagedError(f"{what}: it has other fields than a state")
        self._own = _tensors_of(own)
        listed: Any = told["tensors"]
        if not isinstance(listed, dict):
            raise DamagedError(f"{what}: its tensors are no table")
        self._whole: dict[str, Any] = {}
        self._sums: list[tuple[str, torch.Tensor, int]] = []
        for name, about in listed.items():
            self._place(name, about)
        self.tensors = [local for _, local, _ in self._sums if local.numel()]
        self.tree = tagged.decode(told["tree"], tensor=self._tensor)

    def _place(self, name: str, about: Any) -> None:
        if not (isinstance(about, list) and len(about) == 4 and isinstance(about[1], list)):
            raise DamagedError(f"{self._what}: {names.shown(name)} is described otherwise")
        word, shape, crc, is_part = about
        word = word if isinstance(word, str) else ""
        sizes = len(shape) <= RANK_MAX and all(type(size) is int and 0 <= size < 1 << 48 for size in shape)
        if word not in dtypes.DTYPES or not sizes or type(crc) is not int or math.prod(shape) >= 1 << 48:
            raise DamagedError(f"{self._what}: {names.shown(name)} has no dtype, shape or checksum")
        dtype = dtypes.to_torch(word)
        own = self._own.get(name)
        local = None if own is None else local_of(own).detach()
        fits = local is not None and local.dtype == dtype and list(local.shape) == shape
        if is_part and not fits:
            raise StateError(
                f"{name} is a part of a DTensor: pass state_dict= with one of that name, laid out alike"
            )
        if not fits or local is None:
            own = local = torch.empty(shape, dtype=dtype)
        self._whole[name] = own
        self._sums.append((name, local, crc))

    def _tensor(self, name: str) -> Any:
        if name not in self._whole:
            raise DamagedError(f"{self._what}: {names.shown(name)} is not among its tensors")
        return self._whole[name]

    def check(self) -> None:
        """Raises DamagedError, with names."""
        wrong = [name for name, local, crc in self._sums if checksum(local) != crc]
        if wrong:
            shown = ", ".join(wrong[:8]) + (" ..." if len(wrong) > 8 else "")
            raise DamagedError(f"{self._what}: other bytes than were sent: {shown}; receive it again")


def _tensors_of(tree: Any) -> dict[str, torch.Tensor]:
    """By name, of those that may be written in place."""
    found: dict[str, torch.Tensor] = {}

    def note(path: tagged.Path, value: Any) -> str | None:
        if not isinstance(value, torch.Tensor):
            return None
        found.setdefault(name := names.join(path), value)
        return name

    if tree is not None:
        tagged.encode(tree, tensor=note)
    return found
