"""DDP and FSDP2 keep state of a backward pass that raised (DDP its divisor and bucket counts): it has to go.

From a group's first change on, a hook before each module's forward looks for such modules of the group. All
ranks see the change in the same operation, and so reset the same modules before the same forward.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from typing import Any

from torch.nn.modules.module import Module, register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

# Of modules: after how many changes of their groups they were last reset.
_reset: weakref.WeakKeyDictionary[Module, int] = weakref.WeakKeyDictionary()
_hooked = False


def watch_modules() -> None:
    """Registers the hook, once."""
    global _hooked
    if not _hooked:
        _hooked = True
        register_module_forward_pre_hook(_before_forward)


def _before_forward(module: Any, _: Any) -> None:
    if isinstance(module, DistributedDataParallel):
        if _is_due(module, _changes([module.process_group])):
            module._update_process_group(module.process_group)  # type: ignore[no-untyped-call]
        return
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is not None and isinstance(module, fsdp.FSDPModule):
        state = module._get_fsdp_state()
        if state._is_root and _is_due(module, _changes(set(_groups_of(state)))):
            module.reset_iter_state()


def _groups_of(state: Any) -> Iterator[Any]:
    for each in state._state_ctx.all_states:
        for parameters in each._fsdp_param_groups:
            for dimension in ("replicate_process_group", "shard_process_group"):
                yield getattr(parameters.mesh_info, dimension, None)


def _changes(groups: Any) -> int:
    return sum(getattr(getattr(group, "group", None), "changes", 0) for group in groups)


def _is_due(module: Module, changes: int) -> bool:
    due = changes != _reset.get(module, 0)
    _reset[module] = changes
    return due
