"""`python -m pccl_py master`, and the embedded master."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pccl_py import Communicator, Master
from pccl_py.cli import main
from pccl_py.cli.master import invitation
from tests.conftest import Spawn

from .peers import expect


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_invites_serves_and_ends(spawn: Spawn, ending: signal.Signals) -> None:
    """The printed line is Python: executed as it stands, it joins."""
    process = spawn("-m", "pccl_py", "master", "--listen", "127.0.0.1:0")
    line = expect(process, "  pccl_py.Communicator(")
    command = expect(process, "  python -m pccl_py demo --master")
    with eval("Communicator(" + line) as comm:
        assert command in line
        comm.all_reduce(np.ones(3))
        assert re.search(r"view 1 of 1 peers", next(iter(process.stdout or [])))
    process.send_signal(ending)
    assert process.wait(10) == 0
    rest = process.stdout.read() if process.stdout else ""
    assert "stopped\n" in rest and "Traceback" not in rest  # the log's thread may have a line more


def test_with_a_secret(spawn: Spawn, tmp_path: Path) -> None:
    path = tmp_path / "run.key"
    path.write_text("a secret of a run\n")
    path.chmod(0o600)
    process = spawn("-m", "pccl_py", "master", "--listen", "127.0.0.1:0", "--secret-file", str(path))
    line = expect(process, "  pccl_py.Communicator(")
    assert f'secret_file="{path}"' in line
    assert expect(process, "  python -m pccl_py demo --master").endswith(f"--secret-file {path}")
    with eval("Communicator(" + line) as comm:
        assert comm.world_size == 1


def test_default_address() -> None:
    from pccl_py.cli.master import LISTEN

    assert LISTEN == "127.0.0.1:48148"


def test_invitation_names_what_others_can_dial() -> None:
    text = invitation("[::]:5", ["10.0.0.1:5", "[2001:db8::1]:5"], None, True)
    assert 'pccl_py.Communicator("10.0.0.1:5", insecure=True)' in text
    assert "demo --master 10.0.0.1:5 --insecure" in text
    assert "or at [2001:db8::1]:5" in text


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--listen", "0.0.0.0:0"], 2, "could be joined by anybody"),
        (["--listen", "nonsense"], 1, "nonsense"),
        (["--listen", "192.0.2.1:1", "--insecure"], 1, "cannot listen on 192.0.2.1"),
        (["--secret-file", "/no/such/file"], 2, "cannot be read"),
        (["--state-dir", "/dev/null/below"], 2, "cannot make it"),
    ],
)
def test_wrong_arguments(arguments: list[str], status: int, text: str) -> None:
    command = [sys.executable, "-m", "pccl_py", "master", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == status
    assert text in done.stderr and "Traceback" not in done.stderr


def test_it_starts_quickly() -> None:
    """Nothing that a master does not need is imported; the limit leaves room for a busy machine."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-m", "pccl_py", "master", "--help"], check=True, capture_output=True)
    assert time.monotonic() - begin < 3


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("master", "config", "bench", "demo"))
    with pytest.raises(SystemExit) as caught:
        main(["nonsense"])
    assert caught.value.code == 2


def test_embedded_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Master() as master, Communicator(master.address) as comm:
        comm.all_reduce(np.ones(3))
        status = master.status()
        assert status == {
            "view": 1,
            "peers": [(comm.id, comm.peers()[0].island, 0)],
            "waiting": 0,
            "keepers": {"view": 0, "peers": [], "waiting": 0},
            "runs": {"": 1},
            "departures": 0,
            "fenced": "",
        }
        assert master.addresses()[0] == master.address
    out: Any = capfd.readouterr()
    assert (out.out, out.err) == ("", "")


def test_ipv6() -> None:
    import socket

    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        master = Master("[::1]:0")
    except Exception as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with master:
        assert master.address.startswith("[::1]:")
        with Communicator(master.address) as comm:
            comm.all_reduce(np.ones(3))


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_every_address_that_it_names_answers(listen: str) -> None:
    with Master(listen, insecure=True) as master:
        for address in master.addresses():
            with Communicator(address, insecure=True, timeout=10) as comm:
                assert comm.world_size == 1


def test_a_peer_offers_only_what_it_listens_on(master: Master) -> None:
    with Communicator(master.address, listen="0.0.0.0:0", insecure=True) as comm:
        assert not [address for address in comm.peers()[0].addresses if "[" in address]


def test_host_names(master: Master) -> None:
    port = master.address.rsplit(":", 1)[1]
    with Communicator(f"localhost:{port}") as comm:
        assert comm.world_size == 1


def test_a_stopped_master_gives_its_port_back() -> None:
    first = Master("127.0.0.1:0")
    first.stop()
    with Master(first.address) as second:  # while the first object still lives
        assert second.address == first.address


def test_stop_twice() -> None:
    master = Master()
    master.stop()
    master.stop()
