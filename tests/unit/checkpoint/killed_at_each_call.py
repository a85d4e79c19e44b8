"""One save with everything around it, in a child that is killed at its nth system call; for every n.

The child retires step 1, writes step 3 into its files, commits and sweeps; step 2 is complete all the time. A
write is cut in its middle. Prints how many calls there were.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pccl_py.checkpoint import folder
from pccl_py.checkpoint.plain_reader import read_tensor
from pccl_py.checkpoint.verify import verify_step
from tests.unit.checkpoint.saver import WORLD, save, values

CALLS = ("open", "write", "fsync", "rename", "unlink", "mkdir", "rmdir", "ftruncate", "pwrite")


def kill_at(nth: int) -> None:
    left = [nth]

    def counted(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def wrapper(*args: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                if name == "write":
                    call(args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **named)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name), name))


def cycle(root: Path, durable: int) -> None:
    with folder.hold(root):
        recycled = folder.retire(folder.step_path(root, 1))
        save(root, 3, recycled)
        REAL_WRITE(durable, b"3")
        folder.sweep(root)


REAL_WRITE = os.write


def check(root: Path, committed: bool) -> None:
    found = folder.scan(root)
    for step in found.steps:
        assert step.complete, step
        assert verify_step(step.path).sound
        assert step.manifest is not None
        for rank in range(WORLD):
            assert read_tensor(step.path, step.manifest, f"w{rank}") == values(step.step, rank).tobytes()
    steps = {step.step for step in found.steps}
    assert 2 in steps and (3 in steps or not committed), steps
    with folder.hold(root):
        folder.sweep(root)
        assert not folder.scan(root).leftovers
        save(root, 4, [])
    assert folder.find(root).step == 4


def main(work: Path) -> int:
    before = work / "before"
    for step in (1, 2):
        save(before, step, [])
    nth = 0
    while True:
        nth += 1
        root = work / f"{nth}"
        shutil.copytree(before, root)
        said, tell = os.pipe()
        child = os.fork()
        if child == 0:
            kill_at(nth)
            cycle(root, tell)
            os._exit(0)
        os.close(tell)
        status = os.waitpid(child, 0)[1]
        committed = os.read(said, 1) == b"3"
        os.close(said)
        check(root, committed)
        shutil.rmtree(root)
        if not os.WIFSIGNALED(status):
            assert status == 0 and committed
            return nth


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
