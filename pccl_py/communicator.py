"""A peer of the run: joins, reduces with whoever is present, leaves."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

from . import _core, arguments
from .arguments import Scope, Strategy
from .coded_calls import CodedCalls
from .coded_calls import Poster as CodedPoster
from .collectives import Collectives
from .config import Config
from .errors import ClosedError, Evicted, PcclError, UsageError, from_code
from .joined_with import JoinedWith
from .logs import tie
from .observe.observed import Observed
from .peer_info import LinkInfo, PeerInfo
from .secret import encrypts, secret_of
from .shared_state import SharedState, SyncInfo
from .staging import fence
from .state_sync import StateSync
from .topology import TopologyReport

tie(_core)
logger = logging.getLogger("pccl_py.communicator")
AGAIN_S = 0.1  # before a peer joins again that was turned away for being silent


class Communicator(Collectives, CodedCalls, Observed):
    """`with Communicator("master.example:48148", secret_file="run.key") as comm:` joins, then leaves.

    address         host:port of the master; names, IPv4 and [IPv6]
    secret_file     at least 16 bytes that all peers and the master share: all connections then begin with
                    TLS 1.3 between those who have it, and are encrypted (but see encrypt). None: the
                    configuration's; where that is empty, loopback only
    encrypt         False: the secret only proves, at each connection's start, that both sides know it, and
                    bytes travel as they are. The same at the master and all peers: another side is refused.
                    None: `encrypt` of the configuration, by default True where there is a secret
    insecure        True: other hosts without a secret
    island          name of the peers that live and die together; None: this peer is one by itself
    island_size     how many peers the island has; rank r of it joins group r
    group           the peers that reduce together
    role            "trainer" or "keeper". Peers of one role have a roster, views, boundaries and operations
                    of their own at the same master: whatever happens to the others, these do not notice, and
                    do not count them. A run is over when nobody of either role is left
    min_islands     the run begins once so many islands have come; the largest wish counts
    listen          host:port where other peers reach this one; None: any port, on loopback only unless
                    there is a secret or `insecure`
    advertise       host, host:port or a list of them, where that is not what others can dial
    deterministic   True on all peers: the order and the plans of reductions depend on who takes part (in
                    order of admission) and on sizes, never on what was measured: the same bits in every run
    checksum        True: every chunk to and from this peer carries a CRC-32C, so that bytes that change on
                    the way are seen: the stripe is closed and what it carried is sent again. Costs a pass
                    over the bytes on both sides: on one host a third more CPU and time, on a network seldom
                    noticed. One end of a link that asks for it is enough. Without it frames' headers and
                    control messages are still checked
    run_name        one master serves several runs: the first peer that names one begins it, and it is
                    forgotten with its last peer. Peers of different runs know nothing of each other
    start_rank      ranks are given in the order of these to those who come in together; None: after them
    transport       between peers of one host. "auto": tensors of pccl_py.empty() are read in place ("shm"),
                    others by process_vm_readv ("cma"), each where that works in both processes, else by
                    TCP. "shm", "cma": that way alone, or TCP. "tcp". None: `transport` of the configuration
    timeout         seconds to be admitted, None: `connect_timeout_s` of the configuration. A run that has
                    begun admits at its next update_topology()
    config          None: `Config.load()`

    The constructor returns as a member, or raises ConnectError, AuthenticationError, VersionError,
    RefusedError, OperationTimeout (its text says who or what has not come), Evicted (an island, one of whose
    ranks was silent while all waited to be admitted: construct all again) or UsageError. A named island that
    was killed may be started again at once: it waits until the old one is gone. Any thread may call; several
    threads with operations in flight name their tags.

    Ctrl-C in a blocking operation cancels it on all peers, and the communicator stays usable. A forked child
    must not use it (UsageError). `leave()` with operations in flight ends them here with ClosedError, and the
    other peers repeat them without this one; so does the end of the interpreter.
    """

    def __init__(
        self,
        address: str,
        *,
        secret_file: str | os.PathLike[str] | None = None,
        encrypt: bool | None = None,
        insecure: bool = False,
        island: str | None = None,
        island_size: int = 1,
        group: int = 0,
        role: str = "trainer",
        min_islands: int = 1,
        listen: str | None = None,
        advertise: str | Sequence[str] | None = None,
        deterministic: bool = False,
        checksum: bool = False,
        run_name: str = "",
        start_rank: int | None = None,
        transport: str | None = None,
        timeout: float | None = None,
        config: Config | None = None,
    ) -> None:
        self._config = config or Config.load()
        self._connect_s = arguments.seconds_of(timeout, self._config.connect_timeout_s)
        _core.name_libssl(self._config.libssl)
        name, island_rank, size, group = arguments.island_of(island, island_size, group)
        self._alone = size == 1
        secret = secret_of(secret_file, insecure=insecure, config=self._config)
        encrypted = encrypts(encrypt, secret, drawn=False, insecure=insecure, config=self._config)
        file = secret_file or (self._config.secret_file if secret else None)
        self.joined_with = JoinedWith(address, file, encrypted, insecure, run_name, listen, advertise)
        self._new_peer = partial(
            _core.Peer,
            arguments.dialled(address, "address"),
            island=name,
            island_rank=island_rank,
            island_size=size,
            group=group,
            role=arguments.role_number(role),
            min_islands=arguments.whole(min_islands, "min_islands", 1, arguments.U32_MAX),
            listen=listen or "",
            advertise=arguments.advertised(advertise),
            secret=secret,
            encrypt=encrypted,
            insecure=insecure,
            timing=self._config.apply(_core.Timing()),
            congestion_control=self._config.congestion_control,
            host_id=self._config.host_label,
            deterministic=deterministic,
            stripes=self._config.stripes,
            checksum=checksum,
            run_name=arguments.run_name_of(run_name),
            start_rank=arguments.U32_MAX
            if start_rank is None
            else arguments.whole(start_rank, "start_rank", 0, arguments.U32_MAX - 1),
            transport=self._config.transport if transport is None else transport,
            recorded_events=self._config.recorded_events,
            trace_folder=self._config.trace_dir,
        )
        self._group = group
        self._role = role
        self._process = os.getpid()
        self._untagged = {}
        self._current: list[_core.Peer] = []
        self._finalizer = weakref.finalize(self, _release, self._current, self._process)
        self._join(self._connect_s)
        self._be_observed()

    def _join(self, seconds: float) -> None:
        """Until the time is over, too, where it was silent at the door and may come again. Ranks of an island
        have to come again together: what calls this sees to it."""
        until = time.monotonic() + seconds
        while True:
            try:
                return self._join_once(seconds)
            except Evicted as error:
                if not self._alone:
                    raise
                if seconds >= 0:
                    seconds = until - time.monotonic() - AGAIN_S
                    if seconds < 0:
                        raise
                logger.warning("%s; joining again", error)
                time.sleep(AGAIN_S)

    def _join_once(self, seconds: float) -> None:
        peer = self._new_peer()
        self._current[:] = [peer]
        try:
            peer.connect(seconds)
        except BaseException:
            self._current.clear()
            peer.close()
            raise

    @property
    def _peer(self) -> _core.Peer:
        self._check_usable()
        if not self._current:
            raise ClosedError("this peer is in no run since rejoin() failed: call it again")
        return self._current[0]

    def _poster(self) -> CodedPoster:
        return self._peer

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                f"this communicator belongs to process {self._process} and was inherited by a fork: "
                "use it there, or create one in the child"
            )
        if not self._finalizer.alive:
            raise ClosedError("this peer has left the run; create a new Communicator")

    # ---- coming and going ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Leaves the run politely: the others go on at once. Calling it again does nothing."""
        self._finalizer()

    def rejoin(self, timeout: float | None = None) -> None:
        """After Evicted, OutcomeUnknown, MasterLost or NoQuorumError: comes back as a new peer, as it came.

        Like a newcomer it waits for the next update_topology() of the others; then synchronize the shared
        state. When it raises, it may be called again.
        """
        self._check_usable()
        for peer in self._current:
            if peer.stage() != "gone":
                raise UsageError("rejoin() is for a peer that the run goes on without; this one is a member")
            peer.close()
        self._untagged.clear()
        self._join(self._connect_s if timeout is None else arguments.seconds_of(timeout, 0))

    def update_topology(self, timeout: float | None = None) -> bool:
        """A boundary that all peers of the run reach together; who waits at the door comes in here.

        Returns whether the membership changed, as this peer saw it: when somebody dies at the boundary, peers
        may see different things, so do not let it decide about a collective call. No operation may be in
        flight (UsageError). Costs no message where the last run-wide commit said that nobody waits. A
        newcomer's admission *is* such a boundary: it goes on behind the call that let it in, and does not
        make that call itself (OrderError on all otherwise).
        """
        return self._peer.update_topology(0, arguments.seconds_of(timeout, self._config.operation_timeout_s))

    def optimize_topology(self, probe_ms: int = 200, timeout: float | None = None) -> TopologyReport:
        """A boundary, like update_topology(), at which all links of the run are measured, pair by pair, and
        the ring order that makes the best of them is taken where it promises 10 % or more.

        All peers call it alike (OrderError where others call update_topology()). A round of pairs takes
        about `probe_ms`, more where round trips are long; P peers take P - 1 rounds or P, and 48 at most.
        When somebody dies meanwhile, the others begin anew without it. Raises UsageError with
        `deterministic=True`, which fixes the order.
        """
        probe_ms = arguments.whole(probe_ms, "probe_ms", 20, 2000)
        seconds = arguments.seconds_of(timeout, self._config.operation_timeout_s)
        found = self._peer.optimize_topology(seconds, probe_ms)
        adopted, before, after, latency_before, latency, links, measured = found or (False, *[0] * 6)
        return TopologyReport(
            adopted, self.ring, before, after, latency_before / 1e6, latency / 1e6, links, measured
        )

    @property
    def ring(self) -> tuple[int, ...]:
        """Ids of the peers of this peer's group in the order in which data goes round."""
        return tuple(self._peer.ring(self._group))

    def wait_for(self, islands: int, timeout: float | None = None) -> None:
        """Returns once the run has so many islands; all members call it alike. Raises OperationTimeout."""
        islands = arguments.whole(islands, "islands", 1, arguments.U32_MAX)
        seconds = arguments.seconds_of(timeout, self._config.operation_timeout_s)
        until = time.monotonic() + seconds
        while self.islands < islands:
            left = -1.0 if seconds < 0 else max(0.001, until - time.monotonic())
            self._peer.update_topology(islands, left)

    # ---- who is there --------------------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """This peer's id: never used again, not even after rejoin()."""
        return self._peer.peer_id

    # Where the run has ended for this peer, all of these raise what its calls do: Evicted, MasterLost ...

    @property
    def role(self) -> str:
        """As it joined: "trainer" or "keeper"."""
        return self._role

    @property
    def world_size(self) -> int:
        """Peers of this peer's role in its group. Changes by itself when somebody dies; newcomers count from
        the boundary that lets them in."""
        return len(self._ids())

    @property
    def rank(self) -> int:
        """This peer's position in its group, in order of admission; gaps are closed, at any time,
        when somebody leaves."""
        ids, own = self._ids(), self._peer.peer_id
        if own not in ids:
            raise ClosedError("this peer has no rank: it is not in the run any more")
        return ids.index(own)

    @property
    def islands(self) -> int:
        """Islands in the run."""
        return len({member[1] for member in self._members()})

    @property
    def waiting(self) -> int:
        """Islands at the door, as last heard: news, not agreement. What a commit says is in its info."""
        return self._member_peer().waiting

    @property
    def boundaries(self) -> int:
        """Boundaries that the run has passed with the master's word.

        The same number on all peers between two calls of update_topology(), and what a newcomer is told on
        entry: it tells in which round of a loop the run is.
        """
        return self._peer.view()[2]

    def peers(self) -> list[PeerInfo]:
        """All members of the run that have this peer's role, in order of admission, this one included."""
        links, ranks, peers = self._peer.links(), dict[int, int](), []
        for peer, island, island_rank, group, role, addresses, host in self._members():
            rank = ranks.setdefault(group, 0)
            ranks[group] += 1
            link = LinkInfo(**links[peer]) if peer in links else None
            known = arguments.ROLE_NAMES[role]
            where = tuple(addresses)
            peers.append(PeerInfo(peer, island, island_rank, rank, group, known, where, link, host))
        return peers

    def _members(self) -> list[tuple[int, str, int, int, int, list[str], int]]:
        """Of the view; the last one says nothing any more once the run goes on without this peer."""
        return self._member_peer().members()

    def _member_peer(self) -> _core.Peer:
        peer = self._peer
        code, text = peer.end()
        if code:
            raise from_code(code, text)
        return peer

    def _ids(self) -> list[int]:
        return [member[0] for member in self._members() if member[3] == self._group]

    # ---- shared state --------------------------------------------------------------------------------------

    def sync_shared_state(
        self,
        state: SharedState,
        strategy: Strategy = "enforce_popular",
        *,
        tag: int | None = None,
        scope: Scope = "group",
        timeout: float | None = None,
    ) -> SyncInfo:
        """Makes the state bit-identical on all peers of the group, by transferring only chunks that differ.

        Among the peers that may send, the highest revision wins, then the content that most of them hold.

        strategy   "enforce_popular": may send and receive. "receive_only": takes whatever is elected.
                   "send_only": where there are such peers, only their content can be elected
        tag        names the call, as of an operation: other threads may then have operations in flight

        Sets `state.revision` to the elected one. On an error, the tensors may hold a mixture of old and
        elected chunks (`state.torn`), which is never offered to others, or all of the elected ones, with
        their revision; call it again. No thread may change them meanwhile.
        """
        if not isinstance(state, SharedState):
            raise UsageError(f"the state is a {type(state).__qualname__}: pass SharedState({{name: tensor}})")
        peer = self._peer
        fence.before_write()  # a checkpoint may still copy these tensors
        number = arguments.number_of(strategy, arguments.STRATEGIES, "strategy")
        scope_number = arguments.number_of(scope, arguments.SCOPES, "scope")
        seconds = arguments.seconds_of(timeout, self._config.operation_timeout_s)
        entries = state.entries()
        operation = peer.sync_state(scope=scope_number, name=arguments.name_of(tag), seconds=seconds)
        sync = StateSync(operation, entries, state.revision, number, state.torn, blank=state.blank)
        try:
            info = sync.run()
        finally:
            state.revision = sync.revision  # of what it holds now
            state.torn = sync.torn
        return info

    def __repr__(self) -> str:
        if os.getpid() != self._process or not self._current:
            return "<Communicator without a peer>"
        peer = self._current[0]
        return f"<Communicator peer {peer.peer_id}: {peer.stage()}>"


def _release(current: list[_core.Peer], process: int) -> None:
    """Leaves and closes; also when the communicator is collected, and at the end of the interpreter."""
    if os.getpid() != process:
        return  # a forked child: the peer is its parent's
    for peer in current:
        with suppress(PcclError):
            peer.leave()
        peer.close()
