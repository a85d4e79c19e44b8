"""Every maximum between trainers and keepers, with its reason."""

from __future__ import annotations

from ..values import limits as checkpoint

PROTOCOL = 5  # of greeting, messages, control page and table; another one is refused
MESSAGE_BYTES_MAX = 64 << 10  # what tables are too long for goes through memory of its own
FDS_MAX = 5  # of a message: the control page, two buffers and their tables
NAME_CHARS_MAX = 64  # of a run, a trainer, a keeper
TRAINERS_MAX = 128  # of a keeper; a summary of all fits in one message
CONNECTIONS_MAX = 2 * TRAINERS_MAX
BUFFER_BYTES_MAX = 1 << 46  # 64 TiB, beyond any machine and far from overflow
BUFFER_UNIT = 2 << 20  # a small slab of the staging engine, and a huge page: what is rounded up is kept twice
LARGE_UNIT = 16 << 20  # one that is quick for the staging engine: of buffers that it is a small part of
LARGE_FROM = 2 << 30
TABLE_BYTES_MAX = checkpoint.MANIFEST_BYTES_MAX
RANGES_MAX = (
    64  # of a snapshot, that all have alike: what lies between two is coded by an operation of its own
)
STEP_MAX = checkpoint.STEP_MAX
FORGET_S = 5.0  # until other keepers know what a trainer gives up; without them it goes on then
LOSSES_MAX = 255  # that a trainer is told of: of replicas all but one may go
TEXT_CHARS_MAX = 2000  # of a refusal
ORPHAN_S_MAX = 30 * 86_400.0
GREETING_S = 5.0  # a connection that says nothing for so long is closed
EXITING_S = 2.0  # a trainer that was killed gives back its memory before its socket closes
FILL_THREADS_MAX = 4  # where all wait for memory: each gives some 1.5 GB of pages a second
FILL_BYTES = 64 << 20  # of a buffer, between two looks whether it is still wanted
MARGIN_BYTES = 64 << 20  # stays free when a buffer is made
