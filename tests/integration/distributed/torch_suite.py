"""Runs torch's own tests of torch.distributed on the backend "pccl".

    python -m tests.integration.distributed.torch_suite LIKE OUT [NAME ...]

Writes one JSON line per test to OUT: its name, and "ok", "skip" or "fail" with the text. The tests are in the
torch wheel (torch.testing._internal), and most say for which backends they are: those for LIKE ("gloo", or
"mpi" for the variants of all_to_all) are run, on 4 ranks; "gloo 8" says on how many: some tests of subgroups
want 8. Ranks are forked, which saves each its imports.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any


def prepare(like: str) -> Any:
    """The class of all tests. Their conditions are evaluated when their module is imported."""
    backend, ranks = [*like.split(), "4"][:2]
    os.environ |= {"BACKEND": backend, "WORLD_SIZE": ranks, "OMP_NUM_THREADS": "1"}
    os.environ["TEMP_DIR"] = tempfile.mkdtemp()
    import torch
    import torch._dynamo

    import pccl_py.distributed.backend  # noqa: F401

    torch.set_num_threads(1)
    from torch.testing._internal.distributed import distributed_test as suite

    begin = torch.distributed.init_process_group
    torch.distributed.init_process_group = lambda *_, backend, **options: begin("pccl", **options)

    class Tests(suite.TestDistBackend, suite.DistributedTest._DistTestBase):  # type: ignore[misc]
        def setUp(self) -> None:
            super().setUp()
            self._start_processes(torch.multiprocessing.get_context("fork").Process)

    return Tests


def reason_of(result: unittest.TestResult) -> tuple[str, str]:
    if result.skipped:
        return "skip", result.skipped[0][1]
    troubles = result.errors + result.failures
    return ("fail", troubles[0][1][-1500:]) if troubles else ("ok", "")


def main(like: str, out: str, *names: str) -> None:
    tests = prepare(like)
    every = [name for name in dir(tests) if name.startswith("test_")]
    with Path(out).open("a") as file:
        for name in names or every:
            started = time.monotonic()
            result = unittest.TestResult()
            unittest.TestSuite([tests(name)]).run(result)
            kind, text = reason_of(result)
            seconds = round(time.monotonic() - started, 1)
            file.write(json.dumps({"test": name, "result": kind, "text": text, "seconds": seconds}) + "\n")
            file.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
