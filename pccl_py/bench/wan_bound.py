"""How fast an all_reduce can be over a wide-area network: bytes at its rate, and hops.

Arithmetic alone; nothing here knows which plan the library takes.
"""

from __future__ import annotations

from dataclasses import dataclass

PAYLOAD_SHARE = 1448 / 1500  # of an IP packet: what TCP with time stamps carries


@dataclass(frozen=True)
class Path:
    """What all links have in common. `rate_mbit`: of IP bytes, 0 for no limit; of each peer's access line
    where `shared`, else of each link by itself."""

    rtt_ms: float
    rate_mbit: float
    shared: bool = True

    def seconds(self, payload: float, hops: int) -> float:
        """To send so many bytes one after the other, and for the last of them to have made all hops."""
        sending = payload * 8 / (self.rate_mbit * 1e6 * PAYLOAD_SHARE) if self.rate_mbit > 0 else 0.0
        return sending + hops * self.rtt_ms / 2e3


def bounds(size: int, peers: int, path: Path) -> dict[str, float]:
    """Seconds per plan, without the commit.

    ring       2(P-1) hops, 2(P-1)/P of the bytes to one neighbour
    direct     scatter to owners, gather from them: 2 hops, as many bytes, to P-1 peers at once
    exchange   everything to everybody: 1 hop, P-1 times the bytes
    """
    others = peers - 1
    links = 1 if path.shared else others  # that send at the same time
    return {
        "ring": path.seconds(2 * others / peers * size, 2 * others),
        "direct": path.seconds(2 * others / peers * size / links, 2),
        "exchange": path.seconds(others * size / links, 1),
    }
