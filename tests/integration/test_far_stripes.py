"""Two peers far apart, in real processes, whose stripes die while they exchange: every value is right."""

from __future__ import annotations

import pytest

from .commanded import MASTER
from .emulated import Inside, emulator
from .peers import PEER, expect
from .test_stripes import KILLING

# ADDRESS IN_PLACE
FAR = (
    PEER
    + KILLING
    + """
config = Config(heartbeats_missed_max=20, stripes=16)
with Communicator(address, insecure=True, min_islands=2, transport="tcp", config=config) as comm:
    comm.optimize_topology(20)  # from now on everybody knows how far they are apart
    data, killed, stop, right, attempts = np.empty(1 << 21, np.float32), [], threading.Event(), True, 0
    killer = threading.Thread(target=kill_now_and_then, args=(comm, stop, killed, 8, 0.015))
    killer.start()
    for call in range(3):
        data.fill(comm.id)
        out = data if sys.argv[2] == "1" else np.empty_like(data)
        info = comm.all_reduce(data, out=out)
        right, attempts = right and bool((out == 3).all()), max(attempts, info.attempts)
    stop.set()
    killer.join()
    comm.barrier()
    say("end", right, attempts, len(killed) > 0)
"""
)


@pytest.mark.deadline(200)
@pytest.mark.parametrize("in_place", [pytest.param(0, marks=pytest.mark.nightly), 1])
def test_what_leaves_once_more_is_what_left_before(inside: Inside, in_place: int) -> None:
    """With a stripe goes what the kernel had taken already. In place the sum may take the place of what the
    other end still misses.
    """
    with emulator(3, rtt_ms=40, rate_mbit=200) as net:
        master = inside(net, 2, MASTER, net.addresses[2])
        assert master.stdout is not None
        address = master.stdout.readline().strip()
        peers = [inside(net, place, FAR, address, in_place) for place in range(2)]
        assert [expect(peer, "end") for peer in peers] == ["True 1 True"] * 2
