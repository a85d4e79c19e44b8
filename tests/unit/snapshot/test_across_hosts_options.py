"""What a trainer tells its keeper of the run that it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pccl_py.errors import UsageError
from pccl_py.joined_with import JoinedWith
from pccl_py.snapshot import messages
from pccl_py.snapshot.across_hosts import check_parity, protect_by


class Joined:
    def __init__(self, **differently: Any) -> None:
        first = JoinedWith("master:48148", None, False, False, "run", None, None)
        self.joined_with = first._replace(**differently)


def test_the_keeper_joins_as_its_trainer_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder: a relative path would be another file."""
    monkeypatch.chdir(tmp_path)
    said = protect_by(Joined(secret_file="run.key", encrypt=True), 2, "rack 7", 1e6)
    assert (said.secret_file, said.encrypt) == (str(tmp_path / "run.key"), True)
    assert (said.master, said.run_name, said.domain) == ("master:48148", "run", "rack 7")
    assert (said.parity, said.rate) == (2, 1_000_000)
    assert not protect_by(Joined(secret_file="run.key", encrypt=False), 2, "rack 7", None).encrypt
    assert messages.decode(messages.encode(said)) == said


@pytest.mark.parametrize(
    ("listen", "advertise", "wanted"),
    [
        ("10.0.0.7:5000", "10.0.0.7:5000", ("10.0.0.7", "10.0.0.7")),
        ("[::1]:5000", ["a.example:7", "b.example"], ("[::1]", "a.example")),
        (None, None, ("", "")),
    ],
)
def test_it_has_a_port_of_its_own(listen: str | None, advertise: Any, wanted: tuple[str, str]) -> None:
    said = protect_by(Joined(listen=listen, advertise=advertise), 1, "a", None)
    assert (said.listen, said.advertise) == wanted


def test_what_cannot_be() -> None:
    for parity, seconds in ((-1, 1.0), (256, 1.0), (True, 1.0), (1, -1.0)):
        with pytest.raises(UsageError):
            check_parity(Joined(), parity, seconds)
    with pytest.raises(UsageError, match="pass comm="):
        check_parity(None, 1, 1.0)
    for domain, rate in (("", None), ("a\nb", None), ("a", 0.5)):
        with pytest.raises(UsageError):
            protect_by(Joined(), 1, domain, rate)
