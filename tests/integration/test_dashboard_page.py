"""The page in a real browser: what a run does, and names that try to be more than text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from pccl_py import Communicator, Dashboard, Master
from pccl_py.bench import dashboard as bench

from .peers import QUICK

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def seen(url: str, profile: Path) -> str:
    """The page's elements after two seconds of its own time."""
    show = ("--virtual-time-budget=2000", "--dump-dom", url)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *show]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.deadline(120)
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_members_commits_and_events(master: Master, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    with Dashboard(master) as dashboard, Communicator(master.address, island=hostile, config=QUICK) as comm:
        comm.all_reduce(np.ones(3))
        comm.show(loss=2.25)
        page = seen(dashboard.url, tmp_path)
    assert re.search(r'<span id="state" class="good">live</span>', page), page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img" not in page
    assert re.search(r"members <b>1</b>", page) and "view 1 of 1 peers" in page


@pytest.mark.deadline(120)
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_live_page_shows_a_kill_within_a_second_and_names_it() -> None:
    found = {figure.figure: figure for figure in bench.measure(1)}
    assert len(found) == 4 and all(figure.right for figure in found.values())
    assert all(figure.reached for figure in found.values()), found
