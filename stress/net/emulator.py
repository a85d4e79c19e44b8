"""The emulator as Python drives it."""

from __future__ import annotations

import ctypes
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from types import TracebackType
from typing import Self

from . import stats
from .build import program
from .errors import EmulatorDied, NoEmulator

PEERS_MAX = 32
ANSWER_S = 20.0
_CLONE_NEWNET = 0x40000000
_LINK_KEYS = {"delay_ms", "jitter_ms", "rate_mbit", "queue_ms", "loss", "reorder"}
_PEER_KEYS = {"up_mbit", "down_mbit", "up_queue_ms", "down_queue_ms"}

# One peer, a link (both directions unless `one_way`), or None for all links.
Where = int | tuple[int, int] | None


class Emulator:
    """`with Emulator(...) as net:` so many namespaces, 0 to peers - 1, each linked to each. All links alike:

    rtt_ms      there and back, without queues; a link's own setting is `delay_ms`, of one direction
    jitter_ms   up to so much more delay per packet and direction, evenly; `reorder`: packets may overtake
    rate_mbit   of IP bytes, per direction of each link; 0: no limit
    queue_ms    what waits before a link, as time at its rate; more is dropped at the tail
    loss        share of packets per direction, each by itself, by `seed`
    up_mbit, down_mbit   of each peer's access line, which all its links share; 0: no limit.
                         Their queues have `queue_ms` as well
    tick_us     packets are handled so often; they come late by that much at most, on an idle machine

    A cut is silence, not a reset. Everything ends with the block, and with this process however it ends;
    there is nothing to clean up. Any thread may call. Raises NoEmulator, and EmulatorDied later on.
    """

    def __init__(
        self,
        peers: int = 4,
        *,
        rtt_ms: float = 0.0,
        jitter_ms: float = 0.0,
        reorder: bool = False,
        rate_mbit: float = 0.0,
        queue_ms: float = 50.0,
        loss: float = 0.0,
        up_mbit: float = 0.0,
        down_mbit: float = 0.0,
        mtu: int = 1500,
        tick_us: int = 100,
        seed: int = 1,
    ) -> None:
        if not 2 <= peers <= PEERS_MAX:
            raise ValueError(f"{peers} peers: 2 to {PEERS_MAX} can be linked")
        self.peers = peers
        self.addresses: list[str] = []
        self.namespaces: list[str] = []  # paths that setns() and nsenter --net= take
        self._lock = threading.Lock()
        self._buffer = b""
        self._program = program()
        words = [str(self._program), "run", *map(str, (peers, mtu, tick_us, seed))]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(words, stdin=pipe, stdout=pipe, bufsize=0)
        try:
            self._meet()
            self.set(rtt_ms=rtt_ms, jitter_ms=jitter_ms, reorder=reorder, loss=loss)
            self.set(rate_mbit=rate_mbit, queue_ms=queue_ms)
            for peer in range(peers):
                self.set(peer, up_mbit=up_mbit, down_mbit=down_mbit)
                self.set(peer, up_queue_ms=queue_ms, down_queue_ms=queue_ms)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the network. Who is inside lives on, with loopback alone. The second time it does nothing."""
        process = self._process
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        try:
            process.wait(2)  # it has seen the end of its input
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # ---- being inside --------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self._process.pid

    def command(self, peer: int, *words: str) -> list[str]:
        """The command that runs `words` in a peer's namespace; without words, the prefix for it."""
        return [str(self._program), "enter", self.namespaces[peer], *words]

    def enter(self, peer: int) -> None:
        """Moves this thread into a peer's namespace, and threads that it starts: for a forked process."""
        enter(self.namespaces[peer])

    # ---- live control --------------------------------------------------------------------------------------

    def set(self, where: Where = None, *, one_way: bool = False, **settings: float) -> None:
        """Changes a link, all links (None) or a peer's access line, for packets that come from now on.

        Links: delay_ms or rtt_ms, jitter_ms, reorder, rate_mbit, queue_ms, loss. Peers: up_mbit, down_mbit,
        up_queue_ms, down_queue_ms.
        """
        if "rtt_ms" in settings:
            settings["delay_ms"] = settings.pop("rtt_ms") / 2
        known = _PEER_KEYS if isinstance(where, int) else _LINK_KEYS
        if unknown := settings.keys() - known:
            raise ValueError(f"no such setting: {', '.join(sorted(unknown))}; there are {sorted(known)}")
        if settings.get("loss", 0.0) > 1 or any(value < 0 for value in settings.values()):
            raise ValueError(f"out of range: {settings}")
        text = " ".join(f"{key} {float(value):.9g}" for key, value in settings.items())
        if isinstance(where, int):
            self._ask([f"peer {self._checked(where)} {text}"])
        else:
            self._ask([f"link {a} {b} {text}" for a, b in self._directions(where, one_way)])

    def cut(self, a: int, b: int, *, one_way: bool = False) -> None:
        """Nothing comes through any more, nor what is on its way; `one_way`: from a to b alone."""
        self._ask([f"cut {x} {y}" for x, y in self._directions((a, b), one_way)])

    def restore(self, a: int, b: int, *, one_way: bool = False) -> None:
        """Undoes a cut of this link."""
        self._ask([f"restore {x} {y}" for x, y in self._directions((a, b), one_way)])

    def isolate(self, peer: int) -> None:
        """Cuts a peer off from all others."""
        self._ask([f"isolate {self._checked(peer)}"])

    def reconnect(self, peer: int) -> None:
        """Undoes isolate()."""
        self._ask([f"reconnect {self._checked(peer)}"])

    def partition(self, *groups: Sequence[int]) -> None:
        """Cuts all links between peers of different groups. Who is in none keeps all links."""
        places = {self._checked(peer): number for number, group in enumerate(groups) for peer in group}
        pairs = permutations(places, 2)
        self._ask([f"cut {a} {b}" for a, b in pairs if places[a] != places[b]])

    def heal(self) -> None:
        """Undoes every cut and every isolation."""
        self._ask(["heal"])

    def stats(self) -> stats.NetworkStats:
        return stats.parse(self._ask(["stats"]))

    def cpu_seconds(self) -> float:
        """That the emulator's process has used so far; receiving in a namespace is a part of it."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # ---- the program's side --------------------------------------------------------------------------------

    def _directions(self, where: tuple[int, int] | None, one_way: bool) -> list[tuple[int, int]]:
        if where is None:
            return list(permutations(range(self.peers), 2))
        a, b = map(self._checked, where)
        if a == b:
            raise ValueError(f"peer {a} has no link to itself")
        return [(a, b)] if one_way else [(a, b), (b, a)]

    def _checked(self, peer: int) -> int:
        if not 0 <= peer < self.peers:
            raise ValueError(f"no peer {peer}: there are 0 to {self.peers - 1}")
        return peer

    def _meet(self) -> None:
        for line in self._lines():
            what, _, rest = line.partition(" ")
            if what == "ready":
                return
            if what == "missing":
                raise NoEmulator(rest)
            _, descriptor, address = rest.split()
            self.addresses.append(address)
            self.namespaces.append(f"/proc/{self.pid}/fd/{descriptor}")

    def _ask(self, commands: Sequence[str]) -> list[str]:
        """Done together, before another packet moves on. What they answer."""
        with self._lock:
            try:
                os.write(_fd(self._process.stdin), "".join(f"{line}\n" for line in commands).encode())
            except (OSError, ValueError) as error:
                raise EmulatorDied(f"the emulator takes no command: {error}") from error
            return list(self._answers(len(commands)))

    def _answers(self, count: int) -> Iterator[str]:
        lines = self._lines()
        fault = ""
        while count:
            line = next(lines)
            if line == "ok" or line.startswith("error"):
                count -= 1
                fault = fault or line.removeprefix("ok")
            else:
                yield line
        if fault:
            raise EmulatorDied(f"the emulator does not understand: {fault}")

    def _lines(self) -> Iterator[str]:
        until = time.monotonic() + ANSWER_S
        output = _fd(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while True:
                while b"\n" not in self._buffer:
                    left = until - time.monotonic()
                    text = os.read(output, 1 << 16) if left > 0 and selector.select(left) else b""
                    if not text:
                        raise EmulatorDied(f"the emulator does not answer (status {self._process.poll()})")
                    self._buffer += text
                line, _, self._buffer = self._buffer.partition(b"\n")
                yield line.decode()


def enter(namespace: str) -> None:
    """Moves this thread into the network namespace behind a path. Raises OSError."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(descriptor, _CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), namespace)
    finally:
        os.close(descriptor)


def _fd(stream: object) -> int:
    fileno = getattr(stream, "fileno", None)
    if fileno is None:
        raise EmulatorDied("the emulator was closed")
    number: int = fileno()
    return number
