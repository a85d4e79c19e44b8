"""Stages between peers: the neighbours send theirs with their weights, a replacement rebuilds its own.

Each transfer is one operation of two peers (see transfers.py): all of a stage arrives, or nothing is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from xxhash import xxh3_64_intdigest

from ..errors import UsageError
from ..work import Work
from .averaging import neighbour_average
from .stages import Stage, between, tensors_of
from .weights import number_of

if TYPE_CHECKING:
    from ..communicator import Communicator
    from ..transfers import HasId


def send_stage(
    comm: Communicator,
    stage: Stage,
    to: int | HasId,
    *,
    weight: float,
    tag: int | None = None,
    timeout: float | None = None,
) -> None:
    """Gives this peer's stage and its weight to the replacement of a neighbour; a read-only use of both.

    stage    module or state dict: CPU or CUDA tensors of any dtype and shape, at most 16382. Do not step
             until this has returned; then the other one has it all
    weight   of the last step, see squared_gradient_norm(). What cannot be one is refused where it is used
    to, tag, timeout   as for comm.send

    Raises what comm.send raises: MismatchError where the other one expects other sizes, PeerLost where it
    dies, Cancelled where it gave up as the other neighbour died. Call it again for the next replacement. Each
    wants both: let a barrier(on_loss="raise") of all three say that this one is there to stay.
    """
    tensors = tensors_of(stage, "the stage")
    comm.send([*_header(tensors, weight), *map(_bytes, tensors.values())], to, tag=tag, timeout=timeout)


def receive_stage(
    comm: Communicator,
    like: Stage,
    from_: int | HasId,
    *,
    tag: int | None = None,
    timeout: float | None = None,
) -> tuple[dict[str, Tensor], float]:
    """What the other one gives to send_stage: new tensors, and the weight.

    like   a module or state dict with the same names, shapes and dtypes, on the devices for the result; it is
           not written to. UsageError where names or shapes differ while sizes do not. Else as send_stage
    """
    arriving = _Arriving(comm, like, from_, tag, timeout)
    arriving.wait()
    return arriving.stage()


def recover_stage(
    comm: Communicator,
    stage: torch.nn.Module,
    lost: int,
    peers: Sequence[int | HasId | None],
    *,
    tag: int | None = None,
    timeout: float | None = None,
) -> tuple[float, float]:
    """Rebuilds the stage that this peer has taken over from its neighbours, who call send_stage meanwhile.

        recover_stage(comm, blocks, 1, [first, None, last])    # by rank or PeerInfo, as the pipeline goes

    stage   the module to be filled: the layout of its neighbours, any values, as built anew
    lost    its place in the pipeline, 1 to len(peers) - 2
    peers   who has which stage; only the two neighbours are read

    Both stages travel at the same time, then neighbour_average() is loaded. Returns the weights (below,
    above). Takes memory for three stages besides its own.

    Raises UsageError as neighbour_average and receive_stage do, and what comm.recv raises: with PeerLost a
    neighbour died too, and two stages in a row are beyond an average. The module is as before then.
    """
    index = between(lost, len(peers))
    arriving: list[_Arriving] = []
    try:
        for peer in (peers[index - 1], peers[index + 1]):
            if peer is None:
                raise UsageError(f"a neighbour of stage {index} is None: name its peer, by rank or PeerInfo")
            arriving.append(_Arriving(comm, stage, peer, tag, timeout))
        for one in arriving:
            one.wait()
    except BaseException:
        for one in arriving:
            one.cancel()
        raise
    (below, low), (above, high) = (one.stage() for one in arriving)
    around: list[Stage | None] = [below, None, above]
    stage.load_state_dict(neighbour_average(around, 1, [low, None, high]))
    return low, high


class _Arriving:
    """One stage on its way here. Owns the tensors that are filled."""

    def __init__(
        self, comm: Communicator, like: Stage, from_: int | HasId, tag: int | None, timeout: float | None
    ) -> None:
        shapes = tensors_of(like, "the stage")
        layout = torch.contiguous_format
        self._tensors = {key: torch.empty_like(t, memory_format=layout) for key, t in shapes.items()}
        self._expected = _layout(shapes)
        self._header = _header({}, 0.0)
        filled = [*self._header, *map(_bytes, self._tensors.values())]
        work = comm.recv(filled, from_, tag=tag, timeout=timeout, async_op=True)
        assert isinstance(work, Work)
        self._work = work

    def wait(self) -> None:
        self._work.wait()

    def stage(self) -> tuple[dict[str, Tensor], float]:
        """What came, and its weight; once it is here."""
        weight, layout = self._header
        if int(layout) != self._expected:
            raise UsageError(
                "the stage that came has other names, shapes or dtypes than the one it is for: "
                "build both alike"
            )
        return self._tensors, float(weight)

    def cancel(self) -> None:
        self._work.cancel()


def _header(tensors: dict[str, Tensor], weight: float) -> tuple[Tensor, Tensor]:
    """The weight as float64[1], and the digest of the layout as int64[1]."""
    return torch.tensor([number_of(weight)], dtype=torch.float64), torch.tensor([_layout(tensors)])


def _layout(tensors: dict[str, Tensor]) -> int:
    described = [(key, str(tensor.dtype), list(tensor.shape)) for key, tensor in tensors.items()]
    return xxh3_64_intdigest(repr(described).encode()) >> 1  # fits int64


def _bytes(tensor: Tensor) -> Tensor:
    """uint8[n] over the tensor's memory (a copy of one that is not contiguous), as any dtype can travel."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)
