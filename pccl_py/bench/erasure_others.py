"""Other codecs of `bench erasure`: ISA-L through ctypes, where its library is installed, pyeclib and zfec."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ..errors import UsageError

OTHERS = ("memcpy", "isal", "pyeclib", "zfec")
LIBRARY_VARIABLE = "PCCL_BENCH_ISAL"  # a path, where the library is not the system's
Part = Callable[[int, int], None]  # of each block: first byte, bytes


class IsaL:
    """Intel's library: expanded tables once, then any range of bytes. Without the GIL."""

    def __init__(self) -> None:
        path = os.environ.get(LIBRARY_VARIABLE) or ctypes.util.find_library("isal") or "libisal.so.2"
        try:
            self._library = ctypes.CDLL(path)
        except OSError as error:
            raise UsageError(
                f"ISA-L is not here ({error}): apt-get install libisal2, or set {LIBRARY_VARIABLE} to a path"
            ) from error
        self.version = self._version(path)

    def _version(self, path: str) -> str:
        """The library tells it from 2.31 on; before, its file's name does."""
        if hasattr(self._library, "isal_get_version_str"):
            self._library.isal_get_version_str.restype = ctypes.c_char_p
            return str(self._library.isal_get_version_str().decode())
        gfni = hasattr(self._library, "ec_encode_data_avx512_gfni")
        with open("/proc/self/maps") as maps:
            name = next((line.split()[-1] for line in maps if "isal" in line and ".so" in line), path)
        real = os.path.basename(os.path.realpath(name))
        return f"{real}{', with GFNI' if gfni else ''}"

    def combination(self, factors: bytes, targets: Sequence[int], sources: Sequence[int]) -> Part:
        """factors: row by row, of each target."""
        rows, k = len(targets), len(sources)
        tables = ctypes.create_string_buffer(32 * rows * k)
        self._library.ec_init_tables(k, rows, ctypes.c_char_p(factors), tables)

        def run(first: int, count: int) -> None:
            to = (ctypes.c_void_p * rows)(*(address + first for address in targets))
            of = (ctypes.c_void_p * k)(*(address + first for address in sources))
            self._library.ec_encode_data(count, k, rows, tables, of, to)

        return run


def pyeclib_codec(k: int, m: int, kind: str) -> Any:
    return import_module("pyeclib.ec_iface").ECDriver(k=k, m=m, ec_type=kind)


PYECLIB_KINDS = ("isa_l_rs_vand", "isa_l_rs_cauchy")


def missing(name: str) -> str | None:
    """Why another one cannot be measured here."""
    if name in ("pyeclib", "zfec") and find_spec(name) is None:
        return f"{name} is not installed: pip install {name}"
    if name == "isal":
        try:
            IsaL()
        except UsageError as error:
            return str(error)
    return None
