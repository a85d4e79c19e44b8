"""Arguments that mean nothing are refused before anything is sent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Config, Master, UsageError


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"island_size": 2}, "island_size=2 without island"),
        ({"island_size": 2, "island": "a", "group": 2}, "group=2 in an island of 2"),
        ({"island_size": 0}, "island_size=0"),
        ({"island": ""}, "island=''"),
        ({"island": "x" * 257}, "1 to 256 bytes"),
        ({"group": -1}, "group=-1"),
        ({"role": "boss"}, "role='boss': it is one of 'trainer', 'keeper'"),
        ({"min_islands": 0}, "min_islands=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": "1"}, "timeout='1'"),
        ({"advertise": 3}, "advertise"),
        ({"advertise": "a:b:c"}, "advertise='a:b:c': it is 'host', 'host:port'"),
        ({"advertise": "here:70000"}, "advertise='here:70000'"),
        ({"advertise": ":5"}, "advertise=':5' names no host"),
        ({"advertise": ["here:5", "here:0"]}, "advertise='here:0': nobody listens on port 0"),
        ({"listen": "0.0.0.0:0"}, "not loopback"),
        ({"config": Config(congestion_control="no-such-one")}, "no-such-one: the kernel has no .* reno"),
    ],
)
def test_wrong_options(master: Master, options: Any, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Communicator(master.address, **options)


def test_wrong_arguments_of_operations(master: Master) -> None:
    with Communicator(master.address) as comm:
        array = np.ones(3)
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"op": "mean"}, "op='mean': it is one of 'sum', 'avg'"),
            ({"op": 1}, "op=1"),
            ({"algorithm": "tree"}, "algorithm='tree': it is one of 'auto', 'ring', 'direct', 'exchange'"),
            ({"algorithm": None}, "algorithm=None"),
            ({"tag": -1}, "tag=-1: it is a whole number from 0 to 4294967293"),
            ({"tag": 2**32 - 2}, "tag=4294967294"),
            ({"tag": True}, "tag=True"),
            ({"tag": "x"}, "tag='x'"),
            ({"scope": "world"}, "scope='world'"),
            ({"on_loss": "ignore"}, "on_loss='ignore'"),
            ({"timeout": 0}, "timeout=0"),
            ({"timeout": float("nan")}, "timeout=nan"),
            ({"weight": 1.0}, "weight with op='sum'"),
            ({"op": "avg", "weight": -1}, "weight=-1"),
            ({"op": "avg", "weight": float("inf")}, "weight=inf"),
            ({"op": "avg", "weight": 1e-160}, r"weight=1e-160: .* sums in float64; .* from 2\*\*-512 to"),
            ({"op": "avg", "weight": "x"}, "weight='x'"),
            ({"op": "avg", "weight": "1"}, "weight='1'"),
            ({"op": "avg", "weight": True}, "weight=True"),
            ({"op": "avg", "weight": np.bool_(True)}, "weight=.*True"),
        ]
        for arguments, text in wrong:
            with pytest.raises(UsageError, match=text):
                comm.all_reduce(array, **arguments)
        with pytest.raises(UsageError, match="integer dtype"):
            comm.all_reduce(np.ones(3, int), "avg", weight=1)
        for weight in 1e-40, 2.0**65:
            with pytest.raises(UsageError, match=r"sums in float32; .* 2\*\*64: multiply the weights"):
                comm.all_reduce([array, np.ones(3, np.float32)], "avg", weight=weight)
            comm.all_reduce(array, "avg", weight=weight)
        with pytest.raises(UsageError, match="root=1"):
            comm.broadcast(array, 1)
        with pytest.raises(UsageError, match="islands=0"):
            comm.wait_for(0)
        with pytest.raises(UsageError, match=r"the state is a dict: pass SharedState"):
            comm.sync_shared_state({"a": array})  # type: ignore[arg-type]
        assert np.all(array == 1)
        comm.all_reduce(array, tag=np.int64(3))  # type: ignore[arg-type]


@pytest.mark.parametrize("advertise", ["127.0.0.1", "[::1]", "[::1]:5", "name.example:65535", ["a", "b:1"]])
def test_what_may_be_advertised(master: Master, advertise: Any) -> None:
    with Communicator(master.address, advertise=advertise) as comm:
        assert len(comm.peers()[0].addresses) == (2 if isinstance(advertise, list) else 1)
