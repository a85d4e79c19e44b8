"""Tensors that must be bit-identical on every peer, and how they become so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import UsageError
from .hashing import DIGEST_BYTES, chunks_of, hash_all, memory, root_of
from .host_memory import HostMemory, host_memory
from .tensors import TENSORS_MAX, Tensor, check_disjoint

# As the election words it: csrc/protocol/election.cpp. A layout is dtype[shape].
_LABELS = re.compile(r"(.* differ in )names: '(.*) (\S+\[[\d, ]*\])' and '(.*) (\S+\[[\d, ]*\])'", re.DOTALL)
NAME_BYTES_MAX = 256  # with dtype and shape: csrc/base/limits.hpp
REVISION_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class SyncInfo:
    """A committed sync_shared_state.

    bytes_sent, bytes_received: tensor data and chunk hashes between this peer and others; 0 when in sync.
    revision: the elected one, now also the state's.    donors: ids of the peers that this one fetched from.
    contributors: ids of the peers that took part, of the caller's group.
    seconds: from the call to the commit.    attempts: 1, and one more for each view that interrupted it.
    waiting: islands at the door when it committed.
    """

    bytes_sent: int
    bytes_received: int
    revision: int
    donors: tuple[int, ...]
    contributors: tuple[int, ...]
    seconds: float
    attempts: int
    waiting: int


class Entry:
    """One tensor during one call: its bytes, and the digests of its chunks once they are computed."""

    def __init__(self, name: str, host: HostMemory) -> None:
        host.load()
        self.name = name
        self.host = host
        self.memory = memory(host.address, host.bytes)
        self.chunks = chunks_of(host.bytes)
        self.digests = bytearray(DIGEST_BYTES * self.chunks)

    def root(self) -> bytes:
        return root_of(self.digests, self.host.code, self.host.count)


def readable(text: str) -> str:
    """The core's message about two labels of which each is a name with its layout, told by name and layout.

    "... differ in names: 'w float32[3]' and 'w float32[4]'" -> "... differ in 'w': float32[3] and float32[4]"
    """
    found = _LABELS.fullmatch(text)
    if found is None:
        return text
    before, one, layout, other, other_layout = found.groups()
    if one == other:
        return f"{before}{one!r}: {layout} and {other_layout}"
    return f"{before}names: {one!r} ({layout}) and {other!r} ({other_layout})"


class SharedState:
    """`SharedState({name: tensor}, revision=0)`: numpy arrays and torch tensors of any dtype, device and
    stride.

    Names, dtypes and shapes must be the same on all peers, their order need not be. The tensors stay the
    caller's; between two synchronizations each peer applies the same changes to them and then sets
    `state.revision += 1`. A joiner starts at revision 0 and so never wins an election against those who
    trained.

    Tensors that are no dense host memory are copied to the host for a synchronization, and written back if
    something changed. Two names for one memory (tied weights) are refused: pass it under one of them.
    """

    def __init__(self, tensors: Mapping[str, Tensor], revision: int = 0) -> None:
        if not isinstance(tensors, Mapping):
            raise UsageError(f"no names, but a {type(tensors).__qualname__}: pass {{'weights': weights}}")
        if not tensors:
            raise UsageError("a shared state needs at least one tensor")
        if len(tensors) > TENSORS_MAX:
            raise UsageError(f"{len(tensors)} tensors; a shared state takes {TENSORS_MAX}: join small ones")
        for name in tensors:
            if not isinstance(name, str) or not name:
                raise UsageError(f"{name!r} names a tensor: pass a text that is not empty")
        self._tensors = dict(sorted(tensors.items()))
        self.torn = False
        self.blank = False  # the content is worth nothing: it is not hashed, and never offered
        self.revision = revision
        self._hosts()  # what is wrong with a tensor is said here, not when other peers wait

    @property
    def tensors(self) -> dict[str, Tensor]:
        """By name, in the order of the names."""
        return dict(self._tensors)

    @property
    def revision(self) -> int:
        """Which version the content is. The highest is elected, so raise it by one with each change."""
        return self._revision

    @revision.setter
    def revision(self, value: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= REVISION_MAX:
            raise UsageError(f"revision {value!r}: it is a whole number from 0 to 2**64 - 1")
        self._revision = value
        self.torn = False  # whoever names a revision says that the content is whole

    def digest(self) -> bytes:
        """16 bytes over names, dtypes, shapes and content, without the revision: equal on peers in sync."""
        entries = self.entries()
        hash_all([(entry.memory, entry.digests) for entry in entries])
        words = b"".join(entry.name.encode() + b"\0" + entry.root() for entry in entries)
        return root_of(words, 0, len(entries))

    def entries(self) -> list[Entry]:
        """The tensors as they are now, in the order of their names, on the host; not hashed yet."""
        return [Entry(label, host) for label, host in self._hosts()]

    def __repr__(self) -> str:
        size = sum(int(tensor.nbytes) for tensor in self._tensors.values())
        torn = ", torn" if self.torn else ""
        return f"<SharedState of {len(self._tensors)} tensors, {size} bytes: revision {self.revision}{torn}>"

    def _hosts(self) -> list[tuple[str, HostMemory]]:
        hosts = [self._labelled(name, tensor) for name, tensor in self._tensors.items()]
        own = [(label, host) for label, host in hosts if not host.copied]
        ranges = [(host.address, host.bytes) for _, host in own]
        check_disjoint(ranges, [f"state {label!r}" for label, _ in own])
        return hosts

    @staticmethod
    def _labelled(name: str, tensor: Tensor) -> tuple[str, HostMemory]:
        """dtype and shape are part of the name that peers compare: one that differs is named to everybody."""
        host = host_memory(tensor, f"state {name!r}")
        label = f"{name} {host.layout}"
        if len(label.encode()) > NAME_BYTES_MAX:
            text = f"state {name!r}: name, dtype and shape take {len(label.encode())} bytes"
            raise UsageError(f"{text}; {NAME_BYTES_MAX} is the limit, so pass a shorter name")
        return label, host
