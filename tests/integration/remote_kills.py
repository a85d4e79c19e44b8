"""usage: remote_kills ENDPOINT URL FOLDER KILLS SEED - savers with a remote, killed at random instants;
sometimes
their local folder is lost with them. Prints a line of JSON: what was promised and not kept, and what was
done.

Each saver is forked from this process, which has imported everything and has no thread yet.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import s3fs  # noqa: F401 (before the forks)
import torch

import pccl_py.checkpoint.checkpointer
import pccl_py.checkpoint.s3_store  # noqa: F401
from pccl_py import Checkpointer
from pccl_py.checkpoint import lease, upload_parts
from pccl_py.errors import BusyError, NoCheckpointError

MIB = 1 << 20
ELEMENTS = 5 * MIB  # three parts
BANDWIDTH = 60 * MIB
LONGEST_S = 0.6


def tensor(step: int) -> torch.Tensor:
    """Half of it compresses."""
    values = np.random.default_rng(step).standard_normal(ELEMENTS, np.float32)
    values[: ELEMENTS // 2] = step
    return torch.from_numpy(values)


def saver(url: str, local: Path, endpoint: str, out: int, only_load: bool, compression: Any) -> None:
    torch.set_num_threads(1)
    lease.LEASE_S = 0.4
    upload_parts.PART_BYTES = 5 * MIB
    options = {"endpoint_url": endpoint, "key": "key", "secret": "secret"}
    with Checkpointer(
        url, local=local, remote_options=options, keep=2, remote_keep=2, remote_bandwidth=BANDWIDTH,
        timeout_s=40.0,
        compression=compression,
    ) as saving:  # fmt: skip
        state = {"w": torch.zeros(ELEMENTS)}
        try:
            step = saving.load({"x": state}).step
            right = torch.equal(state["w"], tensor(step))
        except NoCheckpointError as error:
            step, right = 0, "no complete step" in str(error) or str(error)
        say(out, "loaded", step, right)
        while not only_load:
            step += 1
            calm(partial(saving.save, step, {"x": {"w": tensor(step)}}))
            calm(saving.wait)
            say(out, "durable", step)
            if step % 2:
                calm(partial(saving.wait, level="remote"))
                say(out, "uploaded", step, saving.stats.resumed_bytes > 0)
        calm(partial(saving.wait, level="remote"))
        found = saving.steps(level="remote")
        sound = all(saving.verify(number, level="remote").sound for number in found)
        say(out, "end", found, sound, len(saving._uploads._remote.store.unfinished()))  # type: ignore[union-attr]


def calm(action: Callable[[], object]) -> None:
    """Once more where the URL is said, once, to be that of a killed one whose folder is lost."""
    with suppress(BusyError):
        action()
        return
    action()


def say(out: int, *words: Any) -> None:
    os.write(out, json.dumps(words).encode() + b"\n")


def one(arguments: list[str], words_first: int, delay: float | None, compression: Any) -> list[list[Any]]:
    """What a saver says until it is killed: so many words after it has loaded, and then `delay` seconds
    (None: it
    ends by itself)."""
    endpoint, url, folder = arguments[:3]
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            os.close(reading)
            try:
                saver(url, Path(folder) / "local", endpoint, writing, delay is None, compression)
                status = 0
            except BaseException:
                traceback.print_exc()
                raise
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as words:
        said = [json.loads(words.readline() or '["died"]')]
        for _ in range(words_first):
            said.append(json.loads(words.readline() or '["died"]'))
        if delay is not None:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        said += [json.loads(line) for line in words if line.endswith("\n")]
    _, status = os.waitpid(child, 0)
    if delay is None and status != 0:
        said.append(["died"])
    return said


def main(arguments: list[str]) -> None:
    kills, chance = int(arguments[3]), random.Random(int(arguments[4]))
    durable = uploaded = 0
    faults: list[str] = []
    done: Counter[str] = Counter()
    for number in range(kills + 1):
        last = number == kills
        first, delay = chance.choice([0, 0, 1, 2, 3]), chance.uniform(0, LONGEST_S)
        said = one(arguments, 0 if last else first, None if last else delay, chance.choice([None, "zstd"]))
        for word, *more in said:
            done[word] += 1
            if word == "loaded":
                if more[1] is not True:
                    faults.append(f"round {number}: step {more[0]} was loaded wrong: {more[1]}")
                if more[0] < durable:
                    faults.append(f"round {number}: step {durable} was promised, step {more[0]} was loaded")
                durable = max(durable, more[0])
            elif word == "durable":
                durable = more[0]
            elif word == "uploaded":
                uploaded = more[0]
                done["resumed"] += more[1]
            elif word == "end":
                if not more[1] or not more[0] or more[0][-1] < durable or len(more[0]) > 2 or more[2]:
                    faults.append(f"at the end: {more}, {durable} durable")
            else:
                faults.append(f"round {number}: a saver died")
        if not last and chance.random() < 0.3:
            shutil.rmtree(Path(arguments[2]) / "local", ignore_errors=True)
            durable = uploaded
            done["lost folders"] += 1
    print(json.dumps({"faults": faults, "done": done}))


if __name__ == "__main__":
    main(sys.argv[1:])
