"""`python -m pccl_py COMMAND`: one module here per command, imported when the command is named.

Each has `add_parser(subparsers)` and `run(args) -> int`, the exit status.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from ..errors import PcclError, UsageError
from .failures import Parser, WrongArguments, command_of, nobody_reads, tell, tell_json

# In the order of the help. Its module is the name, with _ for -.
COMMANDS = {
    "master": "run a master",
    "config": "show every setting, its value and where it comes from",
    "top": "watch the runs of a master",
    "doctor": "look whether this host is ready for a run",
    "trace": "merge dumps of recorded events into one timeline",
    "ckpt": "list, check, compare and convert checkpoints",
    "snapshots": "list and free snapshots in memory",
    "bench": "measure, alone or against others",
    "demo": "train a small GPT on peers that are killed and come back",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 for a failure, 2 for wrong arguments, 141 where nobody reads on (`| head`). How
    failures are told, `failures` says."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="python -m pccl_py", description="Peers that come and go.")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    for command, about in COMMANDS.items():
        if command == named:
            import_module(f".{command}", __name__).add_parser(subparsers)
        else:
            subparsers.add_parser(command, help=about)
    try:
        args = parser.parse_args(words)
        status = int(import_module(f".{args.command}", __name__).run(args))
        sys.stdout.flush()
        return status
    except WrongArguments as wrong:
        if "--json" in words:
            tell_json(wrong.command or named or "", UsageError.__name__, wrong.text)
        raise
    except PcclError as error:
        tell(command_of(args), error, as_json=getattr(args, "json", False))
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:
        if not nobody_reads():
            raise
        return 128 + signal.SIGPIPE
    except Exception as error:  # ours: its trace is for us
        if getattr(args, "json", False):
            tell_json(command_of(args), type(error).__name__, str(error))
        raise
