"""Every way in which a call of this package fails.

PcclError
  ConnectError          nobody, or something else, answers at the address
  AuthenticationError   the secrets differ
  VersionError          the other side speaks another version of the protocol
  RefusedError          the master turned this peer away, with a reason
  UsageError            the arguments are wrong (also a ValueError)
  NotBuilt              this release cannot do what the arguments ask for (also a NotImplementedError)
  CollectiveError       one operation failed, on every peer; inputs are intact, the communicator goes on
    MismatchError       two peers describe it differently
    OrderError          peers wait in calls that can never meet
    OperationTimeout    the caller's time was over (also a TimeoutError)
    Cancelled           some peer cancelled it
    PeerLost            a peer left and `on_loss="raise"`
    NonFiniteError      a value to be quantized is NaN or infinite; of all peers, if they are to be skipped
  MasterLost            the master does not answer; start it again and join anew
  Evicted               the run goes on without this peer; `rejoin()` comes back as a new one
  IslandLost            a rank of this peer's island is gone; end this process and start the island anew
  OutcomeUnknown        this peer held a result whose fate it cannot learn; `rejoin()`, then synchronize
  NoQuorumError         a restarted master heard too few peers of the last view; its text says what helps
  ProtocolError         bytes that no honest peer sends
  ClosedError           the communicator was left or closed
  CheckpointError       a checkpoint cannot be written, found or read; training may go on
    DamagedError        bytes on disk are not those that were saved; the text names file and block
    NoCheckpointError   there is no complete step to load, or not the one asked for
    StateError          a value of the state cannot be saved, or does not fit; the text has its path
    BusyError           somebody else writes there, or an earlier save has not ended
  SnapshotError         a snapshot in memory cannot be taken or kept; training may go on
    NoSnapshotError     no keeper on this host has a complete one (also a NoCheckpointError)
    SnapshotMemoryError   there is not enough shared memory; the text says how much is needed
  InternalError         our own logic broke: please report the text
"""

from __future__ import annotations

__all__ = [
    "AuthenticationError",
    "BusyError",
    "Cancelled",
    "CheckpointError",
    "ClosedError",
    "CollectiveError",
    "ConnectError",
    "DamagedError",
    "Evicted",
    "InternalError",
    "IslandLost",
    "MasterLost",
    "MismatchError",
    "NoCheckpointError",
    "NoQuorumError",
    "NoSnapshotError",
    "NonFiniteError",
    "NotBuilt",
    "OperationTimeout",
    "OrderError",
    "OutcomeUnknown",
    "PcclError",
    "PeerLost",
    "ProtocolError",
    "RefusedError",
    "SnapshotError",
    "SnapshotMemoryError",
    "StateError",
    "UsageError",
    "VersionError",
    "from_code",
]


class PcclError(Exception):
    """The root of the tree: `except PcclError` catches whatever this package raises."""


class ConnectError(PcclError):
    """Nobody, or something else, answers at the address. The text names address and reason."""


class AuthenticationError(PcclError):
    """The secrets differ, or only one side has one. Give every peer and the master the same secret file."""


class VersionError(PcclError):
    """The other side speaks another version of the protocol. Run the same release everywhere."""


class RefusedError(PcclError):
    """The master turned this peer away. The text says why; nothing was joined."""


class UsageError(PcclError, ValueError):
    """The arguments of the call, or its moment, are wrong. The text says what to pass instead."""


class NotBuilt(PcclError, NotImplementedError):
    """A planned argument whose part does not exist yet. The text names it and what to use until then."""


class CollectiveError(PcclError):
    """One operation failed on every peer. Its inputs are intact, `out` is undefined, the next call works."""


class MismatchError(CollectiveError):
    """Two peers describe one operation differently (sizes, dtypes, op, root ...). The text names both."""


class OrderError(CollectiveError):
    """Peers wait in calls that can never meet. Issue the same calls in the same order, or name their tags."""


class OperationTimeout(CollectiveError, TimeoutError):
    """The caller's time was over. The operation failed on every peer; only from `Work.wait` it still runs."""


class Cancelled(CollectiveError):
    """A peer cancelled the operation, which ends it on every peer. Inputs are intact."""


class PeerLost(CollectiveError):
    """A peer left during the operation, which was aborted on every survivor. Call it again."""


class NonFiniteError(CollectiveError):
    """A value to be quantized is NaN or infinite. The text names the peer and the tensor that hold it."""


class MasterLost(PcclError):
    """The master does not answer any more. Start it again, then create a new Communicator or `rejoin()`."""


class Evicted(PcclError):
    """The run goes on without this peer; the text says why. `rejoin()`, then `sync_shared_state`."""


class IslandLost(PcclError):
    """A rank of this peer's island is gone, and its shards with it; the other islands train on. End this
    process and start the island anew: it is admitted whole, and healed."""


class OutcomeUnknown(PcclError):
    """This peer cannot learn whether the others took a result. `rejoin()`, then `sync_shared_state`."""


class NoQuorumError(PcclError):
    """A restarted master heard too few peers of the last view to go on without risking two runs. `rejoin()`
    begins a new one there, with peers that are started again, and a checkpoint; the text has all ways."""


class ProtocolError(PcclError):
    """Somebody sent bytes that no honest peer sends: another program on the port, or damaged data."""


class ClosedError(PcclError):
    """The communicator (or master) was left or closed, in this call or before it. Create a new one."""


class CheckpointError(PcclError):
    """A checkpoint cannot be written, found or read. Earlier checkpoints stay; the text says what to do."""


class DamagedError(CheckpointError):
    """Bytes on disk are not those that were saved. The text names file and block: take another step, or a
    copy of that file from another level, and `python -m pccl_py ckpt verify` for the whole extent."""


class NoCheckpointError(CheckpointError):
    """No complete step is there, or not the one asked for. The text names the folder and what it holds."""


class StateError(CheckpointError):
    """A value of the state cannot be saved, or does not fit what is loaded. The text has its path."""


class BusyError(CheckpointError):
    """Another saver holds the folder, or an earlier save has not ended. Wait for it, or end it."""


class SnapshotError(PcclError):
    """A snapshot in memory cannot be taken or kept. Earlier ones stay; the text says what to do."""


class NoSnapshotError(SnapshotError, NoCheckpointError):
    """No keeper on this host has a complete snapshot of this trainer. Load the newest checkpoint."""


class SnapshotMemoryError(SnapshotError):
    """There is not enough shared memory for two buffers. The text says how much is needed, and had."""


class InternalError(PcclError):
    """Our own logic broke. The process is sound; please report the text."""


# By the codes of csrc/base/result.hpp, which only ever grow.
_BY_CODE: dict[int, type[PcclError]] = {
    1: UsageError,
    2: ConnectError,
    3: AuthenticationError,
    4: VersionError,
    5: RefusedError,
    6: MismatchError,
    7: OrderError,
    8: OperationTimeout,
    9: Cancelled,
    10: PeerLost,
    11: MasterLost,
    12: Evicted,
    13: OutcomeUnknown,
    14: NoQuorumError,
    15: ProtocolError,
    16: ClosedError,
    17: InternalError,
    18: NonFiniteError,
    19: CheckpointError,
    20: DamagedError,
}


def from_code(code: int, text: str) -> PcclError:
    """The exception for a code of the core. An unknown code is an InternalError that says so."""
    kind = _BY_CODE.get(code)
    if kind is None:
        return InternalError(f"error code {code}, which this release does not know: {text}")
    return kind(text)


def in_words(error: BaseException) -> str:
    """What it says; where it says nothing, what it is: others take no words for no error."""
    return str(error) or type(error).__name__
