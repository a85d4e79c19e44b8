"""What a peer knows of another member of the view, and of the link to it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """The data link to another peer. Bytes count what its stripes carried since each was opened.

    stripes              TCP streams that it has now; `mended`: those that broke while others carried on
    congestion_control   of its first stripe, as the kernel names it
    path                 "host", "lan" or "wan": what stripes and congestion control were chosen for
    rtt_s                round trip as the kernel has measured it, in seconds; 0.0: not yet
    transport            how chunks leave here: "tcp" as bytes; "shm", "cma" or both by their place, where the
                         other end may read this process's memory. The other direction may differ
    """

    remote: str
    stripes: int
    mended: int
    congestion_control: str
    path: str
    rtt_s: float
    transport: str
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A member of the view. `rank` counts within its group; `link` is None where there is none from here.
    Peers with the same `host` are on one machine; 0: not known where. The numbers change with the members."""

    id: int
    island: str
    island_rank: int
    rank: int
    group: int
    role: str
    addresses: tuple[str, ...]
    link: LinkInfo | None
    host: int
