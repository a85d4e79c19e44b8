"""torch.distributed's functions under their names, on peers that may die and come. Needs torch.

    import pccl_py.distributed as dist

    dist.init_process_group()          # torchrun's environment, tcp://, file://, pccl://host:port, or a store
    dist.all_reduce(tensor)            # raises PeerLost on all survivors when somebody dies: repeat the step
    dist.update_topology()             # a step boundary: newcomers come in

Arguments, shapes and what is returned are those of torch.distributed
(docs.pytorch.org/docs/stable/distributed.html); time-outs are timedelta. What communicates raises PeerLost,
which is a DistBackendError too, on all ranks that are left, with the inputs as they were; MismatchError or
OrderError where ranks call different things; TimeoutError; and UsageError for arguments that cannot be.

It needs no torch.distributed, which keeps its own state; where that runs with the backend "pccl", the groups
here are its groups.
"""

from __future__ import annotations

from . import needed_torch as _needed_torch
from . import world as _world
from .availability import (
    DebugLevel,
    get_debug_level,
    get_default_backend_for_device,
    is_backend_available,
    is_gloo_available,
    is_mpi_available,
    is_nccl_available,
    is_ucc_available,
    is_xccl_available,
)
from .backend import Options, new_reconfigurable_group
from .calls import (
    P2POp,
    ReduceOp,
    Work,
    all_gather,
    all_gather_coalesced,
    all_gather_into_tensor,
    all_gather_single,
    all_reduce,
    all_reduce_coalesced,
    all_to_all,
    all_to_all_single,
    barrier,
    batch_isend_irecv,
    broadcast,
    gather,
    irecv,
    isend,
    monitored_barrier,
    recv,
    reduce,
    reduce_scatter,
    reduce_scatter_single,
    reduce_scatter_tensor,
    scatter,
    send,
)
from .checkpoint_transport import CheckpointTransport
from .object_calls import (
    all_gather_object,
    broadcast_object_list,
    gather_object,
    recv_object_list,
    scatter_object_list,
    send_object_list,
)
from .reconfigure import ReconfigureOptions
from .torch_names import FileStore, HashStore, PrefixStore, Store, TCPStore
from .world import (
    GroupMember,
    ProcessGroup,
    communicator,
    destroy_process_group,
    get_backend,
    get_global_rank,
    get_group_rank,
    get_node_local_rank,
    get_pg_count,
    get_process_group_ranks,
    get_rank,
    get_world_size,
    init_process_group,
    invitation,
    is_available,
    is_initialized,
    is_torchelastic_launched,
    new_group,
    new_subgroups,
    new_subgroups_by_enumeration,
    set_on_loss,
    split_group,
    update_topology,
    world_changed,
)

group = _world.group
del _needed_torch  # it was there to be the first

__all__ = [
    "CheckpointTransport",
    "DebugLevel",
    "FileStore",
    "GroupMember",
    "HashStore",
    "Options",
    "P2POp",
    "PrefixStore",
    "ProcessGroup",
    "ReconfigureOptions",
    "ReduceOp",
    "Store",
    "TCPStore",
    "Work",
    "all_gather",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_gather_single",
    "all_reduce",
    "all_reduce_coalesced",
    "all_to_all",
    "all_to_all_single",
    "barrier",
    "batch_isend_irecv",
    "broadcast",
    "broadcast_object_list",
    "communicator",
    "destroy_process_group",
    "gather",
    "gather_object",
    "get_backend",
    "get_debug_level",
    "get_default_backend_for_device",
    "get_global_rank",
    "get_group_rank",
    "get_node_local_rank",
    "get_pg_count",
    "get_process_group_ranks",
    "get_rank",
    "get_world_size",
    "group",
    "init_process_group",
    "invitation",
    "irecv",
    "is_available",
    "is_backend_available",
    "is_gloo_available",
    "is_initialized",
    "is_mpi_available",
    "is_nccl_available",
    "is_torchelastic_launched",
    "is_ucc_available",
    "is_xccl_available",
    "isend",
    "monitored_barrier",
    "new_group",
    "new_reconfigurable_group",
    "new_subgroups",
    "new_subgroups_by_enumeration",
    "recv",
    "recv_object_list",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_single",
    "reduce_scatter_tensor",
    "scatter",
    "scatter_object_list",
    "send",
    "send_object_list",
    "set_on_loss",
    "split_group",
    "update_topology",
    "world_changed",
]
