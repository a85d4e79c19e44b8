"""How a command tells that it failed: a line on stderr and, with --json, an object on stdout where its others
would be: {"error": the line, "kind": the name of the exception, "command": "ckpt ls"}.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
from contextlib import suppress
from typing import NoReturn


class WrongArguments(SystemExit):
    """The parser did not understand; it has said so on stderr. The status is 2."""

    def __init__(self, text: str, command: str) -> None:
        super().__init__(2)
        self.text, self.command = text, command


class Parser(argparse.ArgumentParser):
    """Its subparsers are of this class, too."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        print(f"{self.prog}: error: {message}", file=sys.stderr)
        raise WrongArguments(message, _command(self.prog))


def tell(command: str, error: Exception, *, as_json: bool) -> None:
    print(f"pccl_py {command}: {error}", file=sys.stderr)
    if as_json:
        tell_json(command, type(error).__name__, str(error))


def tell_json(command: str, kind: str, text: str) -> None:
    print(json.dumps({"error": text, "kind": kind, "command": command}), flush=True)


def nobody_reads() -> bool:
    """Whether stdout is a pipe whose other end was closed, as `| head` does; then it goes nowhere from now
    on, also what is flushed at the end."""
    looking = select.poll()
    with suppress(OSError, ValueError):  # there is no such file
        looking.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in looking.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return True


def command_of(args: argparse.Namespace) -> str:
    """With the name of the action or the bench, where it has such."""
    words = (args.command, getattr(args, "action", None) or getattr(args, "bench", None))
    return " ".join(word for word in words if word)


def _command(prog: str) -> str:
    """Of a parser called "python -m pccl_py ckpt ls"; "" of the outermost."""
    return prog.partition(" pccl_py ")[2]
