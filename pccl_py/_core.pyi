"""
The C++ core of pccl_py. Not a public interface: use pccl_py.
"""
from __future__ import annotations
import collections.abc
import typing
import typing_extensions
__all__: list[str] = ['Completions', 'DTYPES', 'Disk', 'Glimpses', 'InjectedDisk', 'Master', 'MemoryCapture', 'Operation', 'Peer', 'Prefetch', 'QUANTIZATIONS', 'ReadStats', 'ReedSolomon', 'SaveReceipt', 'ShardSave', 'ShardWriter', 'StagingPool', 'StateOperation', 'Stripes', 'TensorMemory', 'Timing', 'code_groups', 'copy_crc32c', 'crc32', 'crc32_combine', 'crc32c', 'crc32c_combine', 'decode_into', 'encode_into', 'galois_encode', 'galois_levels', 'galois_multiply_add', 'instruction_sets', 'libssl_name', 'name_libssl', 'on_error', 'on_log', 'populate_pages', 'quantize_decode', 'quantize_encode', 'read_verified', 'reduce', 'rs_coefficient', 'shared_bytes']
class Timing:
    def __init__(self) -> None:
        ...
    @property
    def deadline_floor_ms(self) -> int:
        ...
    @deadline_floor_ms.setter
    def deadline_floor_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def deadline_k(self) -> float:
        ...
    @deadline_k.setter
    def deadline_k(self, arg0: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    @property
    def grace_ms(self) -> int:
        ...
    @grace_ms.setter
    def grace_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def heartbeat_ms(self) -> int:
        ...
    @heartbeat_ms.setter
    def heartbeat_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def heartbeats_missed_max(self) -> int:
        ...
    @heartbeats_missed_max.setter
    def heartbeats_missed_max(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def master_lost_ms(self) -> int:
        ...
    @master_lost_ms.setter
    def master_lost_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def prove_ms(self) -> int:
        ...
    @prove_ms.setter
    def prove_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def reconnect_ms(self) -> int:
        ...
    @reconnect_ms.setter
    def reconnect_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def redial_every_ms(self) -> int:
        ...
    @redial_every_ms.setter
    def redial_every_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def redial_ms(self) -> int:
        ...
    @redial_ms.setter
    def redial_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def settle_ms(self) -> int:
        ...
    @settle_ms.setter
    def settle_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def straggler_ms(self) -> int:
        ...
    @straggler_ms.setter
    def straggler_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def verdict_ms(self) -> int:
        ...
    @verdict_ms.setter
    def verdict_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def waiting_notice_ms(self) -> int:
        ...
    @waiting_notice_ms.setter
    def waiting_notice_ms(self, arg1: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
class Completions:
    def __init__(self) -> None:
        ...
    def push(self, number: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def take(self, seconds: typing.SupportsFloat | typing.SupportsIndex) -> int | None:
        ...
class Operation:
    def cancel(self) -> None:
        ...
    def done(self) -> bool:
        ...
    def notify(self, completions: Completions, number: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def result(self) -> tuple:
        ...
    def wait(self, seconds: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        ...
class StateOperation:
    def cancel(self) -> None:
        ...
    def complete(self) -> None:
        ...
    def fetch(self, donor: typing.SupportsInt | typing.SupportsIndex, entry: typing.SupportsInt | typing.SupportsIndex, hashes: bool, offset: typing.SupportsInt | typing.SupportsIndex, bytes: typing.SupportsInt | typing.SupportsIndex, address: typing.SupportsInt | typing.SupportsIndex, as_bytes: bool) -> None:
        ...
    def next(self, seconds: typing.SupportsFloat | typing.SupportsIndex) -> typing.Any:
        ...
    def offer(self, revision: typing.SupportsInt | typing.SupportsIndex, strategy: typing.SupportsInt | typing.SupportsIndex, entries: collections.abc.Sequence[tuple[str, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, bytes]], serve: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]], keep: typing.Any) -> None:
        ...
class Peer:
    def __init__(self, address: str, *, island: str, island_rank: typing.SupportsInt | typing.SupportsIndex, island_size: typing.SupportsInt | typing.SupportsIndex, group: typing.SupportsInt | typing.SupportsIndex, role: typing.SupportsInt | typing.SupportsIndex, min_islands: typing.SupportsInt | typing.SupportsIndex, listen: str, advertise: collections.abc.Sequence[str], secret: bytes, encrypt: bool, insecure: bool, timing: Timing, congestion_control: str, stripes: typing.SupportsInt | typing.SupportsIndex, checksum: bool, run_name: str, start_rank: typing.SupportsInt | typing.SupportsIndex, host_id: str, deterministic: bool, transport: str, recorded_events: typing.SupportsInt | typing.SupportsIndex, trace_folder: str) -> None:
        ...
    def close(self) -> None:
        ...
    def connect(self, seconds: typing.SupportsFloat | typing.SupportsIndex) -> None:
        ...
    def diagnose(self) -> typing.Any:
        ...
    def end(self) -> tuple[int, str]:
        ...
    def events(self) -> bytes:
        ...
    def leave(self) -> None:
        ...
    def links(self) -> dict:
        ...
    def members(self) -> list:
        ...
    def optimize_topology(self, seconds: typing.SupportsFloat | typing.SupportsIndex, probe_ms: typing.SupportsInt | typing.SupportsIndex) -> typing.Any:
        ...
    def pause_recorder(self, paused: bool) -> None:
        ...
    def post(self, *, call: typing.SupportsInt | typing.SupportsIndex, scope: typing.SupportsInt | typing.SupportsIndex, name: typing.SupportsInt | typing.SupportsIndex, op: typing.SupportsInt | typing.SupportsIndex, root: typing.SupportsInt | typing.SupportsIndex, weight: typing.SupportsFloat | typing.SupportsIndex | None, on_loss: typing.SupportsInt | typing.SupportsIndex, seconds: typing.SupportsFloat | typing.SupportsIndex, algorithm: typing.SupportsInt | typing.SupportsIndex, quantization: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, bool, bool], blocks: typing.SupportsInt | typing.SupportsIndex, peers: typing.SupportsInt | typing.SupportsIndex, ends: tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex], tensors: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]], residuals: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]], keep: typing.Any) -> Operation:
        ...
    def post_coded(self, *, name: typing.SupportsInt | typing.SupportsIndex, seconds: typing.SupportsFloat | typing.SupportsIndex, rank: typing.SupportsInt | typing.SupportsIndex, world: typing.SupportsInt | typing.SupportsIndex, sums: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]]]], blocks: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]], outputs: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], block_bytes: typing.SupportsInt | typing.SupportsIndex, rate_limit: typing.SupportsInt | typing.SupportsIndex, keep: typing.Any) -> Operation:
        ...
    def ring(self, arg0: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        ...
    def show(self, figures: collections.abc.Sequence[tuple[str, typing.SupportsFloat | typing.SupportsIndex]]) -> None:
        ...
    def stage(self) -> str:
        ...
    def sync_state(self, *, scope: typing.SupportsInt | typing.SupportsIndex, name: typing.SupportsInt | typing.SupportsIndex, seconds: typing.SupportsFloat | typing.SupportsIndex) -> StateOperation:
        ...
    def totals(self) -> dict:
        ...
    def update_topology(self, islands: typing.SupportsInt | typing.SupportsIndex, seconds: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        ...
    def view(self) -> tuple[int, int, int]:
        ...
    @property
    def island(self) -> str:
        ...
    @property
    def peer_id(self) -> int:
        ...
    @property
    def trace_file(self) -> str:
        ...
    @property
    def waiting(self) -> int:
        ...
class Master:
    def __init__(self, listen: str, secret: bytes, encrypt: bool, insecure: bool, timing: Timing, state_dir: str = '', store: typing.Any = None) -> None:
        ...
    def addresses(self) -> list[str]:
        ...
    def fence(self, why: str) -> None:
        ...
    def report(self) -> typing.Any:
        ...
    def serve_until(self, monotonic_s: typing.SupportsFloat | typing.SupportsIndex) -> None:
        """
        Past that moment of time.monotonic() nothing is sent, unless moved on.
        """
    def status(self) -> dict:
        ...
    def stop(self) -> None:
        ...
    @property
    def address(self) -> str:
        ...
    @property
    def fenced(self) -> str:
        ...
class Disk:
    """
    The system's file calls, and the threads that write.
    """
    def __init__(self) -> None:
        ...
class InjectedDisk(Disk):
    """
    A disk for tests whose calls fail by a script: entries `CALL WHICH WHAT`, divided by `;` or line ends.
    CALL: open, facts, direct, allocate, truncate, pwrite, pread, push, fdatasync, close, rename, unlink, mkdir.
    WHICH: `3` (the third such call), `3+` (it and all later), `3-5`, or `*`.
    WHAT: an error (ENOSPC, EIO, EROFS, EINTR, EINVAL, EACCES, EDQUOT, ENOENT, EXDEV, EMFILE, EFBIG, EAGAIN,
    ESTALE, EOPNOTSUPP), `cut BYTES` (pwrite and pread take so many at most), `delay MILLISECONDS`, or `kill`
    (SIGKILL to this process instead of the call). `direct * EINVAL` is a file system without O_DIRECT.
    """
    def __init__(self, script: str) -> None:
        ...
    def calls(self) -> dict:
        """
        How many calls of each kind there were.
        """
class ShardWriter:
    """
    Writes one file of `bytes` under the temporary name `path`, in parts.
    """
    def __init__(self, disk: Disk, path: str, bytes: typing.SupportsInt | typing.SupportsIndex, *, recycle: str = '', threads: typing.SupportsInt | typing.SupportsIndex = 2, direct: bool = True) -> None:
        ...
    def abandon(self) -> None:
        """
        Stops, and removes the file.
        """
    def finish(self) -> None:
        """
        Waits until all parts are on the device.
        """
    def write(self, offset: typing.SupportsInt | typing.SupportsIndex, address: typing.SupportsInt | typing.SupportsIndex, bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Memory aligned to 4096 that stays as it is until finish(), readable up to the next 4096.
        """
    @property
    def direct(self) -> bool:
        ...
    @property
    def recycled(self) -> bool:
        ...
    @property
    def written(self) -> int:
        ...
class ReadStats:
    @property
    def blocks(self) -> int:
        ...
    @property
    def bytes_copied(self) -> int:
        ...
    @property
    def bytes_read(self) -> int:
        ...
    @property
    def direct(self) -> bool:
        ...
    @property
    def seconds(self) -> float:
        ...
    @property
    def threads(self) -> int:
        ...
class StagingPool:
    """
    Warm memory that saves copy into: slabs of 16 MiB, or `slab_bytes`, made once (`bytes` is rounded up), populated, in huge pages where the system gives them. `fd`: of a memfd of at least these bytes, mapped shared from its begin; it stays the caller's. Saves that share a pool get slabs in the order of their start(). `populate` False: pages come with the first copy, on the thread that copies. `in_place`: slab n takes slab n of a file, which stays there (MemoryCapture).
    """
    def __init__(self, bytes: typing.SupportsInt | typing.SupportsIndex, *, fd: typing.SupportsInt | typing.SupportsIndex = -1, huge_pages: bool = True, populate: bool = True, in_place: bool = False, slab_bytes: typing.SupportsInt | typing.SupportsIndex = 16777216) -> None:
        ...
    def close(self) -> None:
        """
        Gives the memory back. UsageError while a save uses it.
        """
    def stop_warming(self) -> None:
        ...
    def warm(self) -> None:
        """
        Gives pages to slabs that nobody has used, on this thread, which has a low priority from then on; until there is none left, or stop_warming().
        """
    @property
    def address(self) -> int:
        """
        Of the first slab; the others follow. 0: it was closed.
        """
    @property
    def bytes(self) -> int:
        ...
    @property
    def free(self) -> int:
        """
        Slabs that no save uses.
        """
    @property
    def huge(self) -> bool:
        """
        Mostly in huge pages.
        """
    @property
    def slab_bytes(self) -> int:
        ...
    @property
    def slabs(self) -> int:
        ...
class SaveReceipt:
    """
    Of a durable file. Times are seconds since start().
    """
    @property
    def block_crcs(self) -> bytes:
        """
        CRC-32 of each block of the file, 4 bytes each, little-endian.
        """
    @property
    def callers_bytes(self) -> int:
        """
        Copied by callers who waited.
        """
    @property
    def direct(self) -> bool:
        """
        Written past the page cache.
        """
    @property
    def durable_seconds(self) -> float:
        ...
    @property
    def file_bytes(self) -> int:
        ...
    @property
    def recycled(self) -> bool:
        """
        The retired file was used.
        """
    @property
    def region_crcs(self) -> bytes:
        """
        The same of each region's bytes.
        """
    @property
    def staged_seconds(self) -> float:
        ...
    @property
    def stashed_bytes(self) -> int:
        """
        Of small regions kept aside for a fence.
        """
class ShardSave:
    """
    One file: `header`, then `regions` (address and bytes each, memory that must live until they are staged, or the save was cancelled) one after the other, copied into the pool behind the caller's back, written as `path` + ".part", made durable, then renamed to `path`. `recycle`: "", or a retired file that is overwritten. `exists_by`: "", or the name of a file in the same folder; then the folder is made, and the save fails where that file is there already. `foreign`: indices of regions that the caller copies himself, part by part. Times are seconds, negative: no limit. Once it has failed or was cancelled, waits raise that; a fence does not.
    """
    def __init__(self, pool: StagingPool, disk: Disk, path: str, recycle: str, header: bytes, regions: collections.abc.Sequence, *, foreign: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], block_bytes: typing.SupportsInt | typing.SupportsIndex = 1048576, copy_threads: typing.SupportsInt | typing.SupportsIndex = 1, write_threads: typing.SupportsInt | typing.SupportsIndex = 2, direct: bool = True, exists_by: str = '') -> None:
        ...
    def cancel(self) -> None:
        """
        When it returns nobody reads the regions any more.
        """
    def end(self) -> None:
        """
        cancel(), and waits until the disk is through with it, whatever that takes. The last call; without it the thread that drops the object waits.
        """
    def fence(self, regions: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        """
        True: these regions (None: all) may be changed now. False: the time was over, they may not.
        """
    def foreign_done(self, region: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex) -> None:
        """
        Also after the save has ended: the slab is not used again before.
        """
    def next_foreign(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> tuple[int, int, int, int] | None:
        """
        (region, offset in it, address, bytes): to be copied to the address, then foreign_done. None: the time was over, all were given out, or the save has ended. Call it on another thread than fences: in a small pool these wait for slabs that wait for parts.
        """
    def progress(self) -> tuple[int, int, int]:
        """
        Bytes staged, bytes written, all bytes.
        """
    def start(self) -> None:
        """
        Returns at once; touches no disk.
        """
    def sums(self) -> tuple[bytes, bytes]:
        """
        Once it is staged, perhaps long before it is durable: block_crcs and region_crcs of the receipt.
        """
    def wait_durable(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> SaveReceipt | None:
        """
        None: the time was over.
        """
    def wait_staged(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex, *, copying: bool = True) -> bool:
        """
        True: everything is copied and summed. `copying`: the caller copies along; else it waits aside.
        """
    @property
    def staged(self) -> bool:
        ...
class MemoryCapture:
    """
    The bytes of a file, `header`, then `regions` as ShardSave takes them, copied to the begin of the pool's memory behind the caller's back, and left there. The pool is `in_place`; one capture at a time uses it.
    """
    def __init__(self, pool: StagingPool, header: bytes, regions: collections.abc.Sequence, *, foreign: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] = [], block_bytes: typing.SupportsInt | typing.SupportsIndex = 1048576, copy_threads: typing.SupportsInt | typing.SupportsIndex = 1) -> None:
        ...
    def cancel(self) -> None:
        """
        When it returns nobody reads the regions any more.
        """
    def fence(self, regions: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex] | None, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> bool:
        """
        As of ShardSave.
        """
    def foreign_done(self, region: typing.SupportsInt | typing.SupportsIndex, offset: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def next_foreign(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex) -> tuple[int, int, int, int] | None:
        """
        As of ShardSave.
        """
    def progress(self) -> tuple[int, int, int]:
        """
        Bytes copied, bytes of full slabs, all bytes.
        """
    def start(self) -> None:
        """
        Returns at once.
        """
    def wait_staged(self, timeout_s: typing.SupportsFloat | typing.SupportsIndex, *, copying: bool = True) -> bool:
        """
        True: everything is copied and summed. `copying`: the caller copies along; else it waits aside.
        """
    @property
    def block_crcs(self) -> bytes:
        """
        CRC-32 of each block, 4 bytes each, little-endian. UsageError before all is copied.
        """
    @property
    def region_crcs(self) -> bytes:
        """
        The same of each region's bytes.
        """
    @property
    def staged(self) -> bool:
        ...
class Prefetch:
    """
    Asks for memory that is about to be read in many places.
    """
    def __init__(self, places: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]]) -> None:
        """
        Addresses and bytes; any, for none is read.
        """
    def begin(self) -> None:
        """
        Returns at once; the caches are filled meanwhile.
        """
    @property
    def lines(self) -> int:
        """
        Cache lines that begin() asks for.
        """
class Glimpses:
    """
    A few bytes of each of many tensors.
    """
    def __init__(self, places: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]]) -> None:
        """
        Addresses and bytes: memory that somebody holds.
        """
    def take(self, first: typing.SupportsInt | typing.SupportsIndex, last: typing.SupportsInt | typing.SupportsIndex) -> bytes:
        """
        Of places [first, last), one after the other.
        """
class ReedSolomon:
    def __init__(self, k: typing.SupportsInt | typing.SupportsIndex, m: typing.SupportsInt | typing.SupportsIndex, level: str = '') -> None:
        ...
    def decode(self, blocks: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], present: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], lost: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex) -> bool:
        """
        False: fewer than k are present.
        """
    def decode_row(self, present: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], lost: typing.SupportsInt | typing.SupportsIndex) -> dict:
        """
        Factors by block, of as many blocks as it takes; empty: too few are present.
        """
    def encode(self, data: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], parity: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def encode_copying(self, data: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], copies: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], parity: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex) -> list[int]:
        """
        CRC-32C of each block.
        """
    def update(self, parity: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], slot: typing.SupportsInt | typing.SupportsIndex, old: typing.SupportsInt | typing.SupportsIndex, now: typing.SupportsInt | typing.SupportsIndex, bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def verify(self, blocks: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex) -> tuple:
        """
        Whether all is right; the wrong blocks, or None where that cannot be told.
        """
class Stripes:
    def __init__(self, n: typing.SupportsInt | typing.SupportsIndex, m: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    def block_of(self, stripe: typing.SupportsInt | typing.SupportsIndex, slot: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def slot_of(self, stripe: typing.SupportsInt | typing.SupportsIndex, block: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
    def stripe_of(self, slot: typing.SupportsInt | typing.SupportsIndex, block: typing.SupportsInt | typing.SupportsIndex) -> int:
        ...
class TensorMemory:
    def __init__(self, bytes: typing.SupportsInt | typing.SupportsIndex) -> None:
        ...
    @property
    def shared(self) -> bool:
        ...
def code_groups(domains: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], size: typing.SupportsInt | typing.SupportsIndex) -> list[list[int]]:
    """
    Groups of keepers; domains[i] is that of keeper i.
    """
def copy_crc32c(to: typing.SupportsInt | typing.SupportsIndex, from_: typing.SupportsInt | typing.SupportsIndex, bytes: typing.SupportsInt | typing.SupportsIndex, threads: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    CRC-32C of what was copied.
    """
def crc32(buffer: typing_extensions.Buffer, crc: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
    """
    As zlib.crc32, without the GIL.
    """
def crc32_combine(a: typing.SupportsInt | typing.SupportsIndex, b: typing.SupportsInt | typing.SupportsIndex, bytes_b: typing.SupportsInt | typing.SupportsIndex) -> int:
    """
    Of a and b together, from the CRCs of both and the bytes of b.
    """
def crc32c(address: typing.SupportsInt | typing.SupportsIndex, bytes: typing.SupportsInt | typing.SupportsIndex, before: typing.SupportsInt | typing.SupportsIndex = 0) -> int:
    ...
def crc32c_combine(first: typing.SupportsInt | typing.SupportsIndex, second: typing.SupportsInt | typing.SupportsIndex, bytes_second: typing.SupportsInt | typing.SupportsIndex) -> int:
    ...
def decode_into(level: str, kind: typing.SupportsInt | typing.SupportsIndex, block: typing.SupportsInt | typing.SupportsIndex, dtype: typing.SupportsInt | typing.SupportsIndex, data: typing_extensions.Buffer, out: typing_extensions.Buffer, add: bool, times: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    `add`: onto accumulators.
    """
def encode_into(level: str, kind: typing.SupportsInt | typing.SupportsIndex, block: typing.SupportsInt | typing.SupportsIndex, stochastic: bool, dtype: typing.SupportsInt | typing.SupportsIndex, data: typing_extensions.Buffer, out: typing_extensions.Buffer, times: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    ValueError where an element is not finite.
    """
def galois_encode(targets: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], sources: collections.abc.Sequence[typing.SupportsInt | typing.SupportsIndex], factors: bytes, bytes: typing.SupportsInt | typing.SupportsIndex, level: str = '', streaming: bool = False, adds: bool = False) -> None:
    """
    targets = factors * sources over GF(2^8); addresses, and a matrix row by row.
    """
def galois_levels() -> list[str]:
    """
    Instruction sets of this CPU, the fastest last.
    """
def galois_multiply_add(sums: typing_extensions.Buffer, data: typing_extensions.Buffer, factor: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    sums ^= factor * data in GF(2^8) modulo 0x11d, byte by byte, in place.
    """
def instruction_sets() -> list[str]:
    """
    Those with kernels that this CPU runs, slowest first.
    """
def libssl_name() -> str:
    ...
def name_libssl(path: str) -> None:
    ...
def on_error(make: typing.Any) -> None:
    """
    Every failure raises make(code, text).
    """
def on_log(log: typing.Any) -> None:
    """
    Lines for people (who is missing, view changes) go to log(line), on a thread of their own; None: nowhere.
    """
def populate_pages(memory: typing_extensions.Buffer, *, to_write: bool) -> int:
    """
    Gives whole pages their memory, or maps what they have, without the GIL. An errno, 0: done; EINVAL or ENOSYS: the system cannot.
    """
def quantize_decode(kind: typing.SupportsInt | typing.SupportsIndex, block: typing.SupportsInt | typing.SupportsIndex, dtype: typing.SupportsInt | typing.SupportsIndex, data: typing_extensions.Buffer, out: typing_extensions.Buffer) -> None:
    """
    Decodes into `out`, elements of `dtype`.
    """
def quantize_encode(kind: typing.SupportsInt | typing.SupportsIndex, block: typing.SupportsInt | typing.SupportsIndex, stochastic: bool, dtype: typing.SupportsInt | typing.SupportsIndex, data: typing_extensions.Buffer, seed: typing.SupportsInt | typing.SupportsIndex = 0, first_element: typing.SupportsInt | typing.SupportsIndex = 0) -> typing.Any:
    """
    The bytes of `data`, elements of `dtype`, block by block; None where one is not finite.
    """
def read_verified(disk: Disk, path: str, *, file_bytes: typing.SupportsInt | typing.SupportsIndex, block_bytes: typing.SupportsInt | typing.SupportsIndex, crcs: bytes, runs: collections.abc.Sequence[tuple[typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex, typing.SupportsInt | typing.SupportsIndex]], threads: typing.SupportsInt | typing.SupportsIndex = 4) -> ReadStats:
    """
    Reads runs (file_offset, address, bytes, count, file_stride, memory_stride) from blocks whose
    CRC-32 is that of `crcs`, little-endian, 4 bytes each. DamagedError names file, block and bytes; memory
    may then hold bytes of blocks that were right.
    """
def reduce(level: str, dtype: typing.SupportsInt | typing.SupportsIndex, op: typing.SupportsInt | typing.SupportsIndex, out: typing_extensions.Buffer, incoming: typing_extensions.Buffer, own: typing_extensions.Buffer, streaming: bool, times: typing.SupportsInt | typing.SupportsIndex) -> None:
    """
    out = incoming (op) own.
    """
def rs_coefficient(row: typing.SupportsInt | typing.SupportsIndex, slot: typing.SupportsInt | typing.SupportsIndex) -> int:
    ...
def shared_bytes() -> int:
    ...
DTYPES: dict = {'float32': 1, 'float64': 2, 'float16': 3, 'bfloat16': 4, 'int8': 5, 'int16': 6, 'int32': 7, 'int64': 8, 'uint8': 9, 'uint16': 10, 'uint32': 11, 'uint64': 12}
QUANTIZATIONS: dict = {'none': 1, 'int8': 2, 'uint8': 3, 'int4': 4, 'fp8': 5, 'bf16': 6}
