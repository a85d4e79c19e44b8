"""DDP keeps the divisor, and the place in its buckets, of a backward pass that raised: it has to begin anew.

From a group's first change on, a hook before each module's forward looks for DDP modules of the group. All ranks
see the change in the same operation, and so reset the same modules before the same forward.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch.nn.modules.module import register_module_forward_pre_hook
from torch.nn.parallel import DistributedDataParallel

# Of DDP modules: after how many changes of their group they were last reset.
_reset: weakref.WeakKeyDictionary[DistributedDataParallel, int] = weakref.WeakKeyDictionary()
_hooked = False


def watch_modules() -> None:
    """Registers the hook, once."""
    global _hooked
    if not _hooked:
        _hooked = True
        register_module_forward_pre_hook(_before_forward)


def _before_forward(module: Any, _: Any) -> None:
    if not isinstance(module, DistributedDataParallel):
        return
    group = getattr(module.process_group, "group", None)
    changes = getattr(group, "changes", 0)
    if changes and _reset.get(module, 0) != changes:
        _reset[module] = changes
        module._update_process_group(module.process_group)
