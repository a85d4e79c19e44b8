"""One process: a stripe in memory, our code and others' on it in turns, and every byte checked."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np

from ..erasure import crc32c, native
from ..erasure.memory import empty_blocks
from .erasure_others import PYECLIB_KINDS, IsaL, Part, pyeclib_codec
from .units import MIB

SMALL = 64 * MIB  # of data, for libraries that allocate what they return
Trial = Callable[[], object]


class ErasureWorker:
    """Speeds are of the bytes of data, the k blocks: bytes / second."""

    def levels(self) -> list[str]:
        return list(native.galois_levels())

    def prepare(self, size: int, k: int, m: int) -> None:
        """A stripe of `size` bytes of data, all pages touched."""
        self._k, self._m = k, m
        self._bytes = size // k // 4096 * 4096
        stripe = empty_blocks(k + m, self._bytes)
        self._data, self._parity = stripe[:k], stripe[k:]
        self._copy, self._rebuilt = empty_blocks(k, self._bytes), empty_blocks(m, self._bytes)
        noise = np.random.default_rng(k * m).integers(0, 1 << 63, self._bytes // 8, np.int64).view(np.uint8)
        for slot, block in enumerate(self._data):
            np.add(noise, np.uint8(slot * 37 & 255), out=block)
        for array in (self._copy, self._parity, self._rebuilt):
            array.fill(1)

    def measure(self, level: str, threads: int, against: list[str], repeats: int) -> dict[str, Any]:
        """By what is done: the best speeds of ours and of others, and whether all bytes were right."""
        pool = ThreadPoolExecutor(threads)
        self._ours = native.ReedSolomon(self._k, self._m, level)
        self._isal = IsaL() if "isal" in against else None
        encode = self._encode(threads, pool, against)
        copying = self._copying(threads, pool, against)
        decode = self._decode(threads, pool, against)
        found = {
            "encode": _best(encode, repeats),
            "decode": _best(decode, repeats),
            "copy+crc": _best({name: copying[name] for name in copying if name != "all"}, repeats),
            "copy+crc+encode": _best({"ours": copying["all"], "memcpy": copying["memcpy"]}, repeats),
        }
        pool.shutdown()
        whole = self._data.nbytes
        speeds = {what: {n: whole / s for n, s in times.items()} for what, times in found.items()}
        if "pyeclib" in against or "zfec" in against:
            self._small(speeds, against)
        asked = {"ours", *against}
        return {
            "speeds": {w: {n: s for n, s in by.items() if n in asked} for w, by in speeds.items()},
            "right": self._right(),
            "bytes": whole,
            "isal": self._isal.version if self._isal else None,
        }  # fmt: skip

    def _encode(self, threads: int, pool: ThreadPoolExecutor, against: list[str]) -> dict[str, Trial]:
        data, parity = _rows(self._data), _rows(self._parity)
        ways: dict[str, Trial] = {
            "ours": lambda: self._ours.encode(data, parity, self._bytes, threads),
            "memcpy": self._memcpy(threads, pool),
        }
        if self._isal:
            rows = bytes(native.coefficient(row, slot) for row in range(self._m) for slot in range(self._k))
            other = _rows(self._rebuilt)
            ways["isal"] = self._split(self._isal.combination(rows, other, data), threads, pool)
        return ways

    def _decode(self, threads: int, pool: ThreadPoolExecutor, against: list[str]) -> dict[str, Trial]:
        """The first m blocks of data are lost (all but one parity's worth of them, if there are fewer)."""
        lost = list(range(min(self._m, self._k)))
        present = [block for block in range(self._k + self._m) if block not in lost]
        blocks = [*_rows(self._data), *_rows(self._parity)]
        into = list(blocks)
        for block in lost:
            into[block] = _rows(self._rebuilt)[block]
        ways: dict[str, Trial] = {
            "ours": lambda: self._ours.decode(into, present, lost, self._bytes, threads),
            "memcpy": self._memcpy(threads, pool),
        }
        if self._isal:
            rows = [self._ours.decode_row(present, block) for block in lost]
            factors = bytes(row[block] for row in rows for block in row)
            sources = [blocks[block] for block in rows[0]]
            targets = _rows(self._copy)[: len(lost)]  # so that ours are what is checked
            ways["isal"] = self._split(self._isal.combination(factors, targets, sources), threads, pool)
        return ways

    def _copying(self, threads: int, pool: ThreadPoolExecutor, against: list[str]) -> dict[str, Trial]:
        data, copy, parity = self._data, self._copy, _rows(self._parity)
        to, of = _rows(copy)[0], _rows(data)[0]
        return {
            "ours": lambda: native.copy_crc32c(to, of, data.nbytes, threads),
            "all": lambda: self._ours.encode_copying(_rows(data), _rows(copy), parity, self._bytes, threads),
            "memcpy": self._memcpy(threads, pool),
        }

    def _memcpy(self, threads: int, pool: ThreadPoolExecutor) -> Trial:
        library = ctypes.CDLL(None)
        to, of = _rows(self._copy)[0], _rows(self._data)[0]

        def part(first: int, count: int) -> None:
            library.memcpy(ctypes.c_void_p(to + first), ctypes.c_void_p(of + first), ctypes.c_size_t(count))

        return self._split(part, threads, pool, self._data.nbytes)

    def _split(self, part: Part, threads: int, pool: ThreadPoolExecutor, size: int = 0) -> Trial:
        size = size or self._bytes
        each = -(-size // threads // 4096) * 4096
        ranges = [(first, min(each, size - first)) for first in range(0, size, each)]

        def run() -> None:
            others = [pool.submit(part, *piece) for piece in ranges[1:]]
            part(*ranges[0])
            for other in others:
                other.result()

        return run

    def _small(self, speeds: dict[str, dict[str, float]], against: list[str]) -> None:
        """The libraries that take and give bytes: SMALL of data, one thread."""
        each = min(self._bytes, SMALL // self._k)
        blocks = [block[:each].tobytes() for block in self._data]
        if "zfec" in against:
            zfec: Any = import_module("zfec")
            encoder, numbers = zfec.Encoder(self._k, self._k + self._m), range(self._k, self._k + self._m)
            seconds = _best({"zfec": lambda: encoder.encode(blocks, tuple(numbers))}, 3)["zfec"]
            speeds["encode"]["zfec"] = self._k * each / seconds
            coded = encoder.encode(blocks, tuple(numbers))
            decoder, lost = zfec.Decoder(self._k, self._k + self._m), min(self._m, self._k)
            here = (*coded[:lost], *blocks[lost:])
            names = (*list(numbers)[:lost], *range(lost, self._k))
            seconds = _best({"zfec": lambda: decoder.decode(here, names)}, 3)["zfec"]
            speeds["decode"]["zfec"] = self._k * each / seconds
        if "pyeclib" in against:
            whole = b"".join(blocks)
            for kind in PYECLIB_KINDS:
                codec = pyeclib_codec(self._k, self._m, kind)
                parts = codec.encode(whole)[min(self._m, self._k) :][: self._k]
                ways: dict[str, Trial] = {
                    "encode": lambda codec=codec: codec.encode(whole),  # type: ignore[misc]
                    "decode": lambda codec=codec, parts=parts: codec.decode(parts),  # type: ignore[misc]
                }
                for what, seconds in _best(ways, 3).items():
                    speed = max(speeds[what].get("pyeclib", 0.0), len(whole) / seconds)
                    speeds[what]["pyeclib"] = speed

    def _right(self) -> bool:
        """All parities against the slow field; ISA-L's, whose are the same; blocks rebuilt; the copy."""
        size, lost = self._bytes, min(self._m, self._k)
        verdict, _ = self._ours.verify([*_rows(self._data), *_rows(self._parity)], size, 2)
        rebuilt = all(np.array_equal(self._rebuilt[i], self._data[i]) for i in range(lost))
        sums = self._ours.encode_copying(_rows(self._data), _rows(self._copy), _rows(self._parity), size, 2)
        copied = np.array_equal(self._copy, self._data)
        alike = True
        if self._isal:
            rows = bytes(native.coefficient(row, slot) for row in range(self._m) for slot in range(self._k))
            self._isal.combination(rows, _rows(self._rebuilt), _rows(self._data))(0, size)
            alike = np.array_equal(self._rebuilt, self._parity)
        tail = slice(-4096, None)
        return bool(
            verdict and rebuilt and copied and alike and _slow(self._data[:, tail], self._parity[:, tail])
            and list(sums) == [crc32c(block) for block in self._data]
        )  # fmt: skip


def _slow(data: np.ndarray[Any, Any], parity: np.ndarray[Any, Any]) -> bool:
    """Whether a few bytes are right by logarithms."""
    powers = [1]
    while len(powers) < 255:
        double = powers[-1] << 1
        powers.append(double ^ 0x11D if double > 255 else double)
    logs = {value: power for power, value in enumerate(powers)}
    for row, found in enumerate(parity):
        sums = np.zeros_like(found)
        for slot, block in enumerate(data):
            log = logs[native.coefficient(row, slot)]
            table = np.array([0, *(powers[(logs[v] + log) % 255] for v in range(1, 256))], np.uint8)
            sums ^= table[block]
        if not np.array_equal(sums, found):
            return False
    return True


def _rows(array: np.ndarray[Any, Any]) -> list[int]:
    first = int(array.__array_interface__["data"][0])
    return [first + index * array.strides[0] for index in range(len(array))]


def _best(ways: dict[str, Trial], repeats: int) -> dict[str, float]:
    """Seconds of the quickest trial of each; they take turns, and the first ones do not count."""
    seconds: dict[str, float] = {}
    for trial in range(repeats + 1):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            taken = time.perf_counter() - began
            if trial > 0:
                seconds[way] = min(taken, seconds.get(way, taken))
    return seconds
