"""What comm.optimize_topology() found out about the links between peers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TopologyReport:
    """Of one peer group. Bandwidths are bytes per second of the slowest link that a ring uses, latencies
    seconds of the round trips of all its links together; 0 where nothing is known.

    adopted            the order is new, because it promises to be better
    order              ids of the peers in the ring order that is in use from here on
    bandwidth_before   of the order in use until now; and `bandwidth` of the best order that was found
    links, measured    from any peer of the group to any other, and of these those whose speed is known.
                       Links between peers of one host are not measured: they count as fast
    """

    adopted: bool
    order: tuple[int, ...]
    bandwidth_before: float
    bandwidth: float
    latency_before: float
    latency: float
    links: int
    measured: int

    @property
    def speedup(self) -> float:
        """Predicted for large tensors that go round the ring: how many times faster than before."""
        faster = self.adopted and self.bandwidth_before > 0
        return self.bandwidth / self.bandwidth_before if faster else 1.0
