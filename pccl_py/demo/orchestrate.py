"""A master and several peers on this machine, a kill -9 in the middle of a window, and a newcomer."""

from __future__ import annotations

import json
import os
import queue
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pccl_py

from .live import View, view_for
from .options import Options, to_arguments
from .record import Event, Peer, Record
from .report import write_report

SILENT_S = 60.0  # nobody says anything for so long: give up


class Crew:
    """The peers' processes; they end with this one. Each has a thread here that reads what it says."""

    def __init__(self, options: Options, address: str) -> None:
        # -P: the installed package, not a source tree without its core that is the working directory.
        self._command = [sys.executable, "-P", "-m", "pccl_py", "demo"]
        self._options = replace(options, master=address, json=True, held=True, founders=options.peers)
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._errors: dict[str, IO[bytes]] = {}
        self._said: queue.Queue[tuple[str, Event]] = queue.Queue()

    def start(self, name: str) -> None:
        words = to_arguments(replace(self._options, name=name))
        self._errors[name] = tempfile.TemporaryFile()
        package = str(Path(pccl_py.__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [*self._command, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors[name],
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for this process, which ends the others
        )
        self._processes[name] = process
        threading.Thread(target=self._read, args=(name, process), daemon=True).start()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(json.JSONDecodeError):
                self._said.put((name, json.loads(line)))
        self._said.put((name, {"event": "exit", "t": time.monotonic(), "status": process.wait()}))

    def next(self) -> tuple[str, Event]:
        """Raises queue.Empty when all are silent for long."""
        return self._said.get(timeout=SILENT_S)

    def tell(self, name: str) -> None:
        """To connect."""
        stdin = self._processes[name].stdin
        assert stdin is not None
        with suppress(BrokenPipeError):
            stdin.write("connect\n")
            stdin.flush()

    def kill(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGKILL)

    def errors(self, name: str) -> str:
        """The end of what it wrote to standard error."""
        self._errors[name].seek(0)
        return self._errors[name].read().decode(errors="replace")[-2000:].strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        for file in self._errors.values():
            file.close()


class Director:
    """Decides what is done next, from what the peers said; the schedule is in the options."""

    def __init__(self, options: Options, crew: Crew, record: Record, view: View) -> None:
        self._options = options
        self._crew = crew
        self._record = record
        self._view = view
        names = string.ascii_uppercase
        self._founders = list(names[: options.peers])
        self._victim = self._founders[-1] if options.kill_in else None
        # Started with the others: to start Python and torch takes seconds, and is no part of joining.
        self._joiners = [names[options.peers]] if options.join_in else []
        self._ended: dict[str, int] = {}

    def run(self) -> list[str]:
        """Until all have ended. Returns what went wrong with the processes, if anything did."""
        for name in [*self._founders, *self._joiners]:
            self._start(name)
        while len(self._ended) < len(self._record.peers):
            try:
                name, event = self._crew.next()
            except queue.Empty:
                return [f"nobody said anything for {SILENT_S:g} s"]
            if event["event"] == "exit":
                self._ended[name] = event["status"]
                self._view.show(name, event)
                self._dismiss_late_joiners()
            else:
                self._record.take(name, event)
                self._view.show(name, event)
                self._react(name, self._record.peers[name], event)
        return self._faults()

    def _start(self, name: str) -> None:
        self._record.peers[name] = Peer(name)
        self._crew.start(name)

    def _react(self, name: str, peer: Peer, event: Event) -> None:
        if event["event"] == "ready":
            self._begin_when_all_are_ready()
        elif event["event"] == "step":
            if name == self._victim and self._in_the_middle_of(self._options.kill_in, peer):
                self._kill(peer)
            if self._in_the_middle_of(self._options.join_in, peer):
                self._connect(self._joiners)

    def _in_the_middle_of(self, window: int, peer: Peer) -> bool:
        """Of that window, or later. A peer is in the window after the last one that it committed."""
        position = peer.window + peer.step / self._options.steps
        return position >= window - 0.5

    def _begin_when_all_are_ready(self) -> None:
        if all(peer.ready_at for peer in self._record.peers.values()):
            self._connect(self._founders)

    def _connect(self, names: list[str]) -> None:
        for name in names:
            peer = self._record.peers[name]
            if peer.ready_at is None or peer.told_at is not None:
                continue
            peer.told_at = time.monotonic()
            peer.state = "at the door"
            self._crew.tell(name)
            if name in self._joiners:
                self._view.note(f"{name} knocks in the middle of window {self._record.windows + 1}")

    def _dismiss_late_joiners(self) -> None:
        """The run is over, and who still waits to come in would wait for ever."""
        if set(self._founders) <= self._ended.keys():
            for name in self._joiners:
                if self._record.peers[name].began_at is None and name not in self._ended:
                    self._crew.kill(name)

    def _kill(self, peer: Peer) -> None:
        if peer.killed_at is None:
            peer.killed_at = time.monotonic()
            self._crew.kill(peer.name)
            peer.state = "killed"
            self._view.note(f"kill -9 {peer.name}, in the middle of window {peer.window + 1}")

    def _faults(self) -> list[str]:
        found = []
        late = [name for name in self._joiners if self._record.peers[name].began_at is None]
        for name, status in self._ended.items():
            killed = self._record.peers[name].killed_at is not None or name in late
            if status != (-signal.SIGKILL if killed else 0):
                found.append(f"{name} ended with status {status}: {self._crew.errors(name)}")
        return [*found, *(f"{name} never came in: the others were done too early" for name in late)]


def run_demo(options: Options) -> int:
    """The exit status: 0 when every window was committed with the same bits on all peers."""
    record = Record(options, time.monotonic())
    with pccl_py.Master() as master, Crew(options, master.address) as crew:
        try:
            with view_for(record) as view:
                faults = Director(options, crew, record, view).run()
        except KeyboardInterrupt:
            return 130
    return write_report(record, faults)
