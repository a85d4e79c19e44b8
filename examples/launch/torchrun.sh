#!/bin/sh
# Islands of FSDP ranks, each started and restarted by its own torchrun: one dies, the others train on.
#
#   examples/launch/torchrun.sh MASTER ISLAND [RANKS] [STEPS]      on each host that is an island
#
# MASTER is what `python -m pccl_py master` printed. Never one torchrun over several islands: it stops all
# workers of its job when one dies. Where the host goes too, let systemd, SLURM or Kubernetes start this anew.
set -eu
master=$1 island=$2 ranks=${3:-2} steps=${4-}
cd "$(dirname "$0")/../.."
exec python -m torch.distributed.run --standalone --local-addr 127.0.0.1 --max-restarts 100 --nproc-per-node "$ranks" \
  examples/fsdp_islands.py "$master" "$island" $steps
