"""What a low-communication optimizer says about itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Window:
    """One committed window. What is marked * is the same on every peer.

    number *          windows committed since the run began, this one included
    outer_step *      outer steps applied, this one included
    contributors *    ids of the peers that took part, those with weight 0 included
    weight *          sum of all weights; 0: nobody had trained, and the outer step was skipped
    waiting *         islands at the door when it committed
    steps             inner steps of this peer in the window
    delta_norm        L2 norm of this peer's pseudo-gradient
    average_norm *    L2 norm of the averaged one
    bytes_sent, bytes_received    tensor data of this peer, over all attempts
    attempts          1, and one more for each loss of a peer that it survived
    wait_s            seconds that the training of this peer stood still for it
    committed_at      time.monotonic() when it held the commit
    fragment *        which one
    reduction_s       seconds from the start of the reduction to its commit
    skipped *         ids of peers that were left out, as their deltas held NaN or infinity
    quantization_error  L2 norm of what quantization has held back of this peer's deltas, so far; None
                      without error feedback
    staleness         inner steps of this peer between the departure of its delta and the outer step
    """

    number: int
    outer_step: int
    contributors: tuple[int, ...]
    weight: float
    waiting: int
    steps: int
    delta_norm: float
    average_norm: float
    bytes_sent: int
    bytes_received: int
    attempts: int
    wait_s: float
    committed_at: float
    fragment: int = 0
    reduction_s: float = 0.0
    skipped: tuple[int, ...] = ()
    quantization_error: float | None = None
    staleness: int = 0


@dataclass(slots=True)
class Stats:
    """Sums over this peer's time in the run; the counters of the run itself are properties of the optimizer.

    bytes_sent, bytes_received              by reductions
    state_bytes_sent, state_bytes_received  by synchronizations of the shared state, to and from joiners
    wait_s, state_s     seconds that training stood still for reductions; at the door and in synchronizations
    windows, skipped    committed here, and those of them in which nobody had trained
    synchronizations    of the shared state, the first one included
    repairs             synchronizations that mended this peer's state although it was no joiner: a fault
    rejoins             times that it came back after the run had gone on without it
    speeds              inner steps per second of each peer as of the last commit, by id modulo 64; 0: unknown
    last                the last window, None before the first
    """

    bytes_sent: int = 0
    bytes_received: int = 0
    state_bytes_sent: int = 0
    state_bytes_received: int = 0
    wait_s: float = 0.0
    state_s: float = 0.0
    windows: int = 0
    skipped: int = 0
    synchronizations: int = 0
    repairs: int = 0
    rejoins: int = 0
    speeds: list[float] = field(default_factory=list)
    last: Window | None = None

    @property
    def peers(self) -> int:
        """Contributors of the last window."""
        return len(self.last.contributors) if self.last else 0

    def add(self, window: Window) -> None:
        """A window that has ended, to the sums. Bytes and seconds are of this peer."""
        self.bytes_sent += window.bytes_sent
        self.bytes_received += window.bytes_received
        self.wait_s += window.wait_s
        self.windows += 1
        self.skipped += window.weight == 0
        self.last = window
