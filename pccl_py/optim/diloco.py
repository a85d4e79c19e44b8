"""DiLoCo: many inner steps alone, then one outer step together (arXiv 2311.08105, algorithm 1)."""

from __future__ import annotations

from typing import Unpack

import torch

from . import options
from .engine import Engine
from .options import OuterFactory, Paced, settings
from .reduction import Comm


class DiLoCo(Engine):
    """Every peer takes `sync_every` steps of its inner optimizer from the same parameters. Then the
    differences outer - local are averaged over the peers, the outer optimizer takes a step with the average
    as its gradient, and the result is where everybody starts the next window.

        with pccl.optim.DiLoCo(comm, model, inner, sync_every=100) as outer:
            for batch in batches:
                loss(model, batch).backward()
                inner.step()          # its hook counts, and closes the window after each 100th
                inner.zero_grad()
            outer.finalize()          # all peers: the last steps count too, and all hold the same bits

    Without `with`, call `sync()` before the first inner step and at the end of each window. A peer that goes
    before the others does so without `finalize()`: its unfinished window is dropped.

    comm                 a Communicator, or an Island for a sharded model. From its admission on the others
                         wait for this peer, so build the model before it; a run that begins with several
                         peers gives it min_islands
    model                parameters that require gradients take part, in float32 whatever their dtype. Buffers
                         and frozen parameters stay each peer's own
    inner                the torch optimizer that trains the model; it has one DiLoCo at a time, until close()
    sync_every           inner steps in a window
    outer_optimizer      `factory(parameters) -> torch optimizer`; None: SGD(lr=0.7, momentum=0.9,
                         nesterov=True). Its state is shared, and so are its learning rates

    The whole family takes these:

    quantization         "int8", "int4", ... or a QuantConfig: how the differences travel
    error_feedback       what quantization loses is added to the next difference; None: for int4 only. What is
                         held back changes with a commit only. Costs two float32 per parameter
    non_finite           where a peer's difference holds NaN or infinity. "raise": NonFiniteError on all
                         peers, with its name. "skip": that window goes on without it
    weighting            "uniform"; "tokens": by what add_tokens() was told; "rarity": see local_steps; or a
                         function of a Progress that returns 0, or 2**-64 to 2**64
    merge                "mean"; "rda": mean of the norms times direction of the mean direction, for each
                         parameter but embeddings (arXiv 2604.21428); for each flat one of FSDP1
    outer_momentum_clip  the longest outer step, in units of the outer learning rate (CO2); None: no limit
    backup_device        where the outer state lives; None: on the host
    pin_memory           outer state in page-locked memory; None: where the model is on a GPU
    bucket_cap_mb        a difference is handed over as tensors of at most this size; it is one operation
    inner_state_on_join  what a peer that joins a running run, or comes back, does with the state of its inner
                         optimizer: "keep", "zero", or "copy": it goes on with that of a member, learning
                         rates included; zeros where nobody has any, or who gives it dies. Nobody else waits
                         for it. The same on all peers
    verify_every         compare the outer state between peers after so many windows, and repair it; 0: never.
                         Costs a hash of it and no data
    sampler              an ElasticSampler, whose global batch is what all peers train on in a window: of
                         H * P * B samples for P peers and B a step; with fragments, between the departures
                         of two. Then share() gives the samples of each step. However many peers there are, a
                         window has the same; every sample of an epoch is used exactly once, whoever dies.
                         Shared, and saved, with the outer state. overlapping=True, if averages travel while
                         peers train. Ranks of an island have one each, of that rank's part of the data

    DiLoCo and LocalSGD also take these, for peers of different speeds:

    local_steps          "fixed"; "dynamic": `sync_every` steps for the fastest peer, fewer for others (but
                         min_steps), in proportion to their measured speeds, so that they arrive together
    min_peers, grace_ms  a window ends when so many peers should be through by their speeds, and that much
                         later. Who is not goes on with its window, from the outer step of the others, and
                         counts in a later one. With weighting="rarity" it counts there for those that it
                         missed. None: all are waited for

    Peers come and go. A newcomer is admitted at the end of a window and receives the outer state there; it
    trains the next window like the others. Who dies costs the survivors nothing but a repetition of the
    reduction among them. Who was evicted but lives joins again by itself; its unfinished window is dropped.
    A peer without an inner step in the window has weight 0; where all have, the outer step is skipped.
    """

    def __init__(
        self,
        comm: Comm,
        model: torch.nn.Module,
        inner: torch.optim.Optimizer,
        *,
        sync_every: int,
        outer_optimizer: OuterFactory | None = None,
        **common: Unpack[Paced],
    ) -> None:
        outer = options.nesterov if outer_optimizer is None else outer_optimizer
        super().__init__(comm, model, inner, settings("DiLoCo", outer, sync_every=sync_every, **common))
