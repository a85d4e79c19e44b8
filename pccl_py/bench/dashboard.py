"""`bench dashboard`: from the kill -9 of one of three peers until the master's page shows it, in Chromium.

The page looks by itself, as it does for people. Peers reduce without a pause, or do nothing at all: then only
the master's connection to the victim breaks.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import time
from collections.abc import Iterator
from functools import partial

from ..master.dashboard import Dashboard
from .browser import Browser
from .crew import Crew, Worker, WorkerFailed, each
from .looping import LoopingPeer
from .peers import MasterHost
from .report import Figure
from .units import KIB

PEERS = 3
SIZE = 64 * KIB
GOAL_S = 1.0
SHOWN_S = 30.0  # later: it is not shown

# A peer's state in the table of members: "alive", or empty once it is not there any more.
_PAGE = """
const under = title => {
  const head = [...document.querySelectorAll("h3")].find(one => one.textContent === title);
  return head ? [...head.nextElementSibling.rows] : [];
};
const row_of = peer => under("Members").find(row => row.cells[0].textContent === peer);
const state = peer => row_of(peer)?.cells[5].textContent ?? "";
const failures = () => under("Recent failures").map(row => row.textContent);
const until = (seen, seconds) => new Promise(done => {
  const end = performance.now() + 1000 * seconds;
  const look = () => seen() ? requestAnimationFrame(() => done(true))
    : performance.now() > end ? done(false) : setTimeout(look, 5);
  look();
});
"""


class ShownMaster(MasterHost):
    """With a page."""

    def serve(self) -> str:
        self._dashboard = Dashboard(self._master)
        return self._dashboard.url


def measure(kills: int, seed: int = 1) -> Iterator[Figure]:
    """The longest over so many kills of each kind."""
    chance = random.Random(seed)
    for busy in (True, False):
        seconds, named = _kills(kills, busy, chance)
        doing = "in mid-operation" if busy else "while nobody does anything"
        details = {"kills": kills, "median_s": statistics.median(seconds)}
        name = f"kill -9 {doing} to the page in Chromium: the longest"
        yield Figure("dashboard", name, max(seconds), "s", GOAL_S, details, named == kills)
        yield Figure(
            "dashboard", f"kills {doing} that the page does not name as failures", kills - named, "", 0
        )


def _kills(kills: int, busy: bool, chance: random.Random) -> tuple[list[float], int]:
    """Seconds of each, and how many the page named."""
    seconds, named = [], 0
    with Crew() as crew:
        master = crew.start("the master", ShownMaster)
        address, url = master.call("describe")["address"], master.call("serve")
        start = partial(_start, crew, master, address)
        peers = {slot: start(slot) for slot in range(PEERS)}
        each(list(peers.values()), "join", address=address, min_islands=PEERS)
        with Browser(url) as page:
            page.evaluate(f"{{{_PAGE} Object.assign(window, {{state, failures, until}}); }} true")
            for _ in range(kills):
                slot = chance.randrange(PEERS)
                victim, survivors = peers.pop(slot), list(peers.values())
                took, was_named = _kill(page, victim, survivors, busy, chance)
                seconds.append(took)
                named += was_named
                crew.end(victim)
                for survivor in survivors:
                    survivor.call("wait_for", islands=PEERS - 1)
                peers[slot] = start(slot)
                peers[slot].send("join", address=address)
                each(survivors, "wait_for", islands=PEERS)
                peers[slot].receive()
    return seconds, named


def _start(crew: Crew, master: Worker, address: str, slot: int) -> Worker:
    return crew.start(f"peer {slot}", partial(LoopingPeer, master.pid, slot, SIZE))


def _kill(
    page: Browser, victim: Worker, survivors: list[Worker], busy: bool, chance: random.Random
) -> tuple[float, bool]:
    known = each([victim, *survivors], "slot_of")
    peer = json.dumps(str(known[0]["id"]))
    if not page.evaluate(f'until(() => state({peer}) === "alive", {SHOWN_S})'):
        raise WorkerFailed(f"the page does not show peer {peer}")
    if busy:
        victim.send("run")
        for survivor in survivors:
            slots = {str(one["id"]): one["slot"] for one in known}
            survivor.send("run_until", slots=slots, without=known[0]["id"])
    time.sleep(chance.uniform(0.1, 0.6))  # at any time between two looks of the page
    killed = time.monotonic()
    victim.signal(signal.SIGKILL)
    shown = page.evaluate(f'until(() => state({peer}) !== "alive", {SHOWN_S})')
    took = time.monotonic() - killed
    if not shown:
        raise WorkerFailed(f"the page has not shown the kill of peer {peer} for {SHOWN_S:g} s")
    if busy:
        for survivor in survivors:
            survivor.receive()
    names = f"failures().some(text => new RegExp(`peer ${{{peer}}}\\\\b`).test(text))"
    return took, bool(page.evaluate(f"until(() => {names}, {SHOWN_S})"))
