"""One call of sync_shared_state, seen from one peer: hash, offer, fetch what differs, verify, vote.

The core runs the protocol and moves blocks; here is decided which blocks. Everything runs on the caller's
thread.

A tensor that differs is brought up to date in two steps: the donor's list of chunk digests, which must hash
to the elected root; then the chunks whose digests differ, from all donors at once, each verified before it
reaches the tensor. A new view starts the election again; chunks that have arrived are in place by then and do
not travel twice.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from xxhash import xxh3_128_digest

from .errors import ProtocolError, from_code
from .hashing import CHUNK_BYTES, address_of, digest_at, hash_all, put_digest, root_of
from .shared_state import Entry, SyncInfo, readable
from .staging import fence
from .work import CANCEL_S

RECEIVE_ONLY = 3  # wire/types.hpp Strategy
REQUESTS_PER_DONOR = 4  # enough to keep its link busy while a block is verified here
REQUESTS_MAX = 32  # each holds a chunk of memory
HASH_BLOCK_BYTES = CHUNK_BYTES
# A block that failed usually means that a new view is on its way; if none comes, other donors are asked.
RETRY_S = 0.5


class StateOperation(Protocol):
    """What the core gives for one synchronization; used by one thread."""

    def next(self, seconds: float) -> tuple[Any, ...] | None: ...
    def offer(
        self,
        revision: int,
        strategy: int,
        entries: list[tuple[str, int, int, bytes]],
        serve: list[tuple[int, int, int, int]],
        keep: object,
    ) -> None: ...
    def fetch(
        self, donor: int, entry: int, hashes: bool, offset: int, bytes: int, address: int, as_bytes: bool
    ) -> None: ...
    def complete(self) -> None: ...
    def cancel(self) -> None: ...


class Block(NamedTuple):
    """A part of a tensor, or of its list of chunk digests."""

    entry: int
    hashes: bool
    offset: int


@dataclass
class Request:
    """A block that a donor was asked for, and where it lands. as_bytes: it is sent, also inside a host, where
    it may else be read in the donor's memory."""

    donor: int
    size: int
    buffer: bytearray
    as_bytes: bool


@dataclass
class Stale:
    """A tensor that differs from the elected content."""

    index: int
    entry: Entry
    root: bytes
    donors: list[int]
    digests: bytearray
    todo: deque[Block] = field(default_factory=deque)  # not asked for yet
    missing: int = 0  # blocks of the current step that have not arrived
    knows_digests: bool = False


class StateSync:
    """`run()` returns what was committed, or raises what ended it.

    On an error the tensors of this peer may hold a mixture of old and elected chunks: `torn` says so. A torn
    peer only receives, also in its next synchronization: a mixture must never be elected. What has come
    whole is the elected revision from that moment on, whoever is left to commit it: `revision`.

    blank   the tensors hold nothing of worth: they are not hashed, only received
    """

    def __init__(
        self,
        operation: StateOperation,
        entries: list[Entry],
        revision: int,
        strategy: int,
        torn: bool = False,
        *,
        blank: bool = False,
    ) -> None:
        self.torn = torn
        self._blank = blank
        self._operation = operation
        self._entries = entries
        self.revision = revision
        self._strategy = strategy
        self._elected = revision
        self._hashed = blank  # digests of nothing differ from all that there are
        self._changed: set[int] = set()
        self._donors: set[int] = set()
        self._buffers: list[bytearray] = []  # all of them, as long as the core may write to one
        self._free: list[bytearray] = []
        self._own_digests = [address_of(entry.digests) for entry in entries]
        self._begin()

    def _begin(self) -> None:
        """A new attempt: nothing of an older one is asked for any more."""
        self._stale: dict[int, Stale] = {}
        self._ready: deque[Stale] = deque()  # those with something to ask for
        self._requests: dict[Block, Request] = {}
        self._load: dict[int, int] = {}  # requests by donor
        self._late: dict[Block, list[Request]] = {}  # given up; what lands there is ignored
        self._failed: dict[tuple[int, int | None], str] = {}  # by tensor and, where it is known, donor
        self._retry_at = 0.0

    # ---- events --------------------------------------------------------------------------------------------

    def run(self) -> SyncInfo:
        try:
            outcome = self._follow()
        except BaseException:
            self._cancel()
            self._keep()
            raise
        return self._done(*outcome)

    def _follow(self) -> tuple[Any, ...]:
        while True:
            event = self._operation.next(self._patience())
            if event is None:
                self._retry()
            elif event[0] == "done":
                return event[1:]
            else:
                getattr(self, f"_on_{event[0]}")(*event[1:])

    def _patience(self) -> float:
        return max(0.0, self._retry_at - time.monotonic()) if self._failed else -1.0

    def _cancel(self) -> None:
        """Ends it for all peers, and waits until no block is read from or written to our memory."""
        self._operation.cancel()
        until = time.monotonic() + CANCEL_S
        while (left := until - time.monotonic()) > 0:
            event = self._operation.next(left)
            if event is None or event[0] == "done":
                return

    def _note_torn(self) -> None:
        self.torn |= bool(self._changed and self._stale)

    def _keep(self) -> None:
        """After an error: what is whole stays, copies too, so that all tensors are of one revision."""
        self._note_torn()
        if not self.torn:
            self._write_back()

    def _write_back(self) -> None:
        torn, self.torn = self.torn, True  # an error on the way leaves tensors of two revisions
        for index in self._changed:
            self._entries[index].host.write_back()
        self.torn = torn

    def _on_start(self, attempt: int) -> None:
        self._note_torn()
        self._begin()
        if not self._hashed:
            hash_all([(entry.memory, entry.digests) for entry in self._entries])
            self._hashed = True
        offers, serve = [], []
        for entry, digests in zip(self._entries, self._own_digests, strict=True):
            host = entry.host
            offers.append((entry.name, host.code, host.count, entry.root()))
            serve.append((host.address, host.bytes, digests, len(entry.digests)))
        strategy = RECEIVE_ONLY if self.torn or self._blank else self._strategy
        self._operation.offer(self.revision, strategy, offers, serve, (self._entries, self._buffers))

    def _on_elected(self, revision: int, plan: Sequence[tuple[int, bytes, Sequence[int]]]) -> None:
        self._elected = revision
        for index, root, donors in plan:
            entry = self._entries[index]
            if bytes(root) != entry.root():
                self._find_stale(
                    Stale(index, entry, bytes(root), list(donors), bytearray(len(entry.digests)))
                )
        self._pump()
        self._vote_if_complete()

    def _on_block(self, index: int, hashes: bool, offset: int, size: int) -> None:
        block = Block(index, hashes, offset)
        request = self._requests.get(block)
        stale = self._stale.get(index)
        if request is None or stale is None:
            return
        if hashes:
            self._landed_digests(stale, block, request)
        else:
            self._landed_chunk(stale, block, request)
        self._pump()
        self._vote_if_complete()

    def _on_failed(self, index: int, text: str, donor: int | None = None) -> None:
        if not self._failed:
            self._retry_at = time.monotonic() + RETRY_S
        self._failed[index, donor] = text

    def _done(
        self,
        code: int,
        text: str,
        contributors: Sequence[int],
        waiting: int,
        attempts: int,
        sent: int,
        received: int,
        seconds: float,
    ) -> SyncInfo:
        if code != 0:
            self._keep()
            raise from_code(code, readable(text))
        self._write_back()
        donors, peers = tuple(sorted(self._donors)), tuple(contributors)
        return SyncInfo(sent, received, self._elected, donors, peers, seconds, attempts, waiting)

    # ---- what to fetch -------------------------------------------------------------------------------------

    def _find_stale(self, stale: Stale) -> None:
        fence.before_write()  # its chunks will be written, by this thread and by the core's
        self._stale[stale.index] = stale
        if stale.entry.chunks == 1:  # its digest follows from the chunk: the root is all that must be known
            stale.knows_digests = True
            self._ask(stale, [Block(stale.index, False, 0)])
        else:
            self._ask_digests(stale)

    def _ask_digests(self, stale: Stale) -> None:
        """From one donor, so that a wrong list has one author."""
        offsets = range(0, len(stale.digests), HASH_BLOCK_BYTES)
        self._ask(stale, [Block(stale.index, True, offset) for offset in offsets])

    def _ask_chunks(self, stale: Stale) -> None:
        own, wanted = stale.entry.digests, stale.digests
        differ = [i for i in range(stale.entry.chunks) if digest_at(own, i) != digest_at(wanted, i)]
        self._ask(stale, [Block(stale.index, False, i * CHUNK_BYTES) for i in differ])

    def _ask(self, stale: Stale, blocks: list[Block]) -> None:
        stale.todo.extend(blocks)
        stale.missing += len(blocks)
        self._ready.append(stale)

    def _pump(self) -> None:
        """Asks in turns for each tensor's next block, as long as a donor of it has room."""
        without_room = 0
        while self._ready and without_room < len(self._ready) and len(self._requests) < REQUESTS_MAX:
            stale = self._ready.popleft()
            if not stale.todo:
                continue
            donor = self._donor_with_room(stale, stale.todo[0].hashes)
            if donor is None:
                without_room += 1
            else:
                without_room = 0
                self._fetch(stale, stale.todo.popleft(), donor)
            self._ready.append(stale)

    def _donor_with_room(self, stale: Stale, hashes: bool) -> int | None:
        candidates = stale.donors[:1] if hashes else stale.donors
        load, donor = min((self._load.get(donor, 0), donor) for donor in candidates)
        return donor if load < REQUESTS_PER_DONOR else None

    def _fetch(self, stale: Stale, block: Block, donor: int, as_bytes: bool = False) -> None:
        whole = len(stale.digests) if block.hashes else stale.entry.host.bytes
        size = min(CHUNK_BYTES, whole - block.offset)
        buffer = self._free.pop() if self._free else self._new_buffer()
        request = Request(donor, size, buffer, as_bytes or block.hashes)
        self._requests[block] = request
        self._load[donor] = self._load.get(donor, 0) + 1
        entry, hashes, offset = block
        address = address_of(buffer)
        self._operation.fetch(donor, entry, hashes, offset, size, address, request.as_bytes)

    def _new_buffer(self) -> bytearray:
        self._buffers.append(bytearray(CHUNK_BYTES))
        return self._buffers[-1]

    # ---- what has arrived ----------------------------------------------------------------------------------

    def _landed_digests(self, stale: Stale, block: Block, request: Request) -> None:
        stale.digests[block.offset : block.offset + request.size] = request.buffer[: request.size]
        self._settled(block, request)
        stale.missing -= 1
        if stale.missing:
            return
        host = stale.entry.host
        if root_of(stale.digests, host.code, host.count) == stale.root:
            stale.knows_digests = True
            self._ask_chunks(stale)
        else:
            self._exclude(stale, request.donor, "its list of hashes does not match what was elected")
            self._ask_digests(stale)

    def _landed_chunk(self, stale: Stale, block: Block, request: Request) -> None:
        data = memoryview(request.buffer)[: request.size]
        digest = xxh3_128_digest(data)
        chunk = block.offset // CHUNK_BYTES
        if not self._expected(stale, chunk, digest):
            if late := self._late.get(block):
                late.pop()  # it was the answer to an older request, which lands elsewhere
                return
            self._settled(block, request)
            if not request.as_bytes:  # read where the donor may have ended, and changed it, meanwhile
                return self._fetch(stale, block, request.donor, as_bytes=True)
            self._exclude(stale, request.donor, "a chunk that it sent does not match its hash")
            stale.missing -= 1
            self._ask(stale, [block])
            return
        stale.entry.memory[block.offset : block.offset + request.size] = data
        put_digest(stale.entry.digests, chunk, digest)
        self._changed.add(stale.index)
        self._donors.add(request.donor)
        self._settled(block, request)
        stale.missing -= 1
        if not stale.missing:
            del self._stale[stale.index]

    def _expected(self, stale: Stale, chunk: int, digest: bytes) -> bool:
        if stale.entry.chunks > 1:
            return digest == digest_at(stale.digests, chunk)
        return root_of(digest, stale.entry.host.code, stale.entry.host.count) == stale.root

    def _settled(self, block: Block, request: Request) -> None:
        del self._requests[block]
        self._load[request.donor] -= 1
        self._free.append(request.buffer)

    def _exclude(self, stale: Stale, donor: int, why: str) -> None:
        if donor in stale.donors:
            stale.donors.remove(donor)
        if not stale.donors:
            raise ProtocolError(
                f"sync_shared_state: no donor is left for {stale.entry.name!r}, after peer {donor}: {why}. "
                "Either its tensor changes while it is synchronized, or its memory is faulty"
            )

    def _retry(self) -> None:
        """No view came that would explain the failures: others are asked for what is outstanding."""
        failed, self._failed = self._failed, {}
        for (index, donor), why in failed.items():
            if stale := self._stale.get(index):
                self._ask_others(stale, donor, why)
        self._pump()

    def _ask_others(self, stale: Stale, donor: int | None, why: str) -> None:
        outstanding = [block for block in self._requests if block.entry == stale.index]
        given_up = [block for block in outstanding if donor in (None, self._requests[block].donor)]
        for block in given_up:
            request = self._requests.pop(block)
            self._load[request.donor] -= 1
            self._late.setdefault(block, []).append(request)
            self._exclude(stale, request.donor, why)
        if stale.knows_digests:
            stale.missing -= len(given_up)
            self._ask(stale, given_up)
        elif given_up:  # the list comes from one donor as a whole
            stale.todo.clear()
            stale.missing = 0
            self._ask_digests(stale)

    def _vote_if_complete(self) -> None:
        if not self._stale:
            self.torn = False
            self.revision = self._elected
            self._operation.complete()
