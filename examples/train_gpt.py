#!/usr/bin/env python3
"""Trains a small GPT with DiLoCo on peers that come and go.

    python examples/train_gpt.py
        a master and 3 peers on this machine, of which one is killed, and another one that joins
    python -m pccl_py master --listen 0.0.0.0:48148 --secret-file run.key
    python examples/train_gpt.py --master HOST:48148 --secret-file run.key
        a master, and one peer of its run: start it on as many hosts as there are

A peer may be started, stopped and killed at any time; the others go on. What it does is in
pccl_py/demo/train.py. A script of one's own is the same: build the model, connect, wrap the optimizer, train.

    with pccl_py.Communicator(master, secret_file="run.key") as comm:
        with pccl_py.optim.DiLoCo(comm, model, inner, sync_every=100) as outer:
            while outer.windows < 1000:
                model.loss(next(batches)).backward()
                inner.step()  # each 100th ends a window: reduction, outer step, admission of newcomers
                inner.zero_grad()

`python -m pccl_py demo` takes the same arguments, where only the package is installed.
"""

import sys

from pccl_py.cli import main

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
