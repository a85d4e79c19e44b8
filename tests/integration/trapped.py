"""A page of memory that kills the process whose core reads it: death at one place of an operation, for sure.

The kernel ends the process as at a SIGKILL, with another number: at once, all threads, connections reset.
"""

from __future__ import annotations

import ctypes
import mmap
import resource
import signal
from typing import Any

SIGNAL = signal.SIGSEGV


def trap(tensor: Any, share: float) -> None:
    """The page of the torch tensor's element at that share of it must not be touched from here on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    begin, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    page = (begin + int(share * size)) // mmap.PAGESIZE * mmap.PAGESIZE
    assert begin <= page and page + mmap.PAGESIZE <= begin + size, "a page of the tensor alone"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), 0):
        raise OSError(ctypes.get_errno(), "mprotect")


def trap_part(comm: Any, tensor: Any, *, own: bool) -> None:
    """In a plan where each peer adds up a part of its own ("direct"): that part of this peer, which it reads
    once the others' are there; or another one, which it reads, where it is quantized, to send it."""
    ring = list(comm.ring)
    part = (ring.index(comm.id) + (not own)) % len(ring)
    trap(tensor, (part + 0.5) / len(ring))
