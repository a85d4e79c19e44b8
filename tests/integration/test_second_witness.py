"""A peer that is alone in its group has no data link: the master asks its port when its connection breaks."""

from __future__ import annotations

from pccl_py import Communicator, Config, Master
from tests.conftest import Spawn

from .peers import PEER, expect

# Nothing but a refusal at the victim's port can tell of its death within the limits of this test.
PATIENT = Config(heartbeat_ms=60_000, reconnect_ms=600_000)

ALONE = """
config = Config(heartbeat_ms=60_000, reconnect_ms=600_000)
comm = Communicator(address, group=1, min_islands=2, config=config)
say("in")
time.sleep(600)
"""


def test_a_refusal_at_its_port_is_the_second_witness(spawn: Spawn) -> None:
    with Master(config=PATIENT) as master:
        victim = spawn("-c", PEER + ALONE, master.address)
        with Communicator(master.address, group=0, min_islands=2, config=PATIENT) as comm:
            expect(victim, "in")
            work = comm.barrier(scope="run", async_op=True)
            victim.kill()
            work.wait(timeout=30)
            assert comm.world_size == 1
            assert [peer.group for peer in comm.peers()] == [0]
