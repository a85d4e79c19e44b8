"""The secret of a run, from the file that holds it."""

from __future__ import annotations

import os
import stat
import warnings
from contextlib import suppress
from importlib import import_module

from .config import Config
from .errors import UsageError

SECRET_BYTES_MIN = 16


def secret_of(path: str | os.PathLike[str] | None, *, insecure: bool, config: Config) -> bytes:
    """The run's secret by argument, else by `config` unless the caller wants none; empty: there is none."""
    if path is None and config.secret_file and not insecure:
        path = config.secret_file
    secret = read_secret(path, insecure=insecure)
    if secret:
        with suppress(ImportError):
            import_module("ssl")  # the core takes the OpenSSL that the process has: let it be Python's
    return secret


def encrypts(encrypt: bool | None, secret: bytes, *, drawn: bool, insecure: bool, config: Config) -> bool:
    """What a run's secret does: True, encrypt all connections; False, only prove who is there.

    The argument wins over `encrypt` of the configuration; where both leave it open, a secret encrypts unless
    it was `drawn` by the library, for peers that nobody gave one. Raises UsageError where encryption is asked
    for and there is no secret: nothing that was to be encrypted ever goes out in plain.
    """
    if encrypt is not None and not isinstance(encrypt, bool):
        raise UsageError(f"encrypt={encrypt!r}: it is True, False or None")
    known = {"yes": True, "no": False, "auto": None}
    if config.encrypt not in known:
        raise UsageError(f"encrypt (PCCL_ENCRYPT) is {config.encrypt!r}: it is yes, no or auto")
    asked = known[config.encrypt] if encrypt is None and not insecure else encrypt
    if asked and not secret:
        raise UsageError("encryption (encrypt=True, PCCL_ENCRYPT=yes) needs a secret: give secret_file=")
    if asked is None:
        return bool(secret) and not drawn
    return asked


def read_secret(path: str | os.PathLike[str] | None, *, insecure: bool) -> bytes:
    """The file's bytes without one trailing newline; empty where `path` is None.

    Warns where anybody on the host may read the file. Raises UsageError for what is no secret.
    """
    if path is None:
        return b""
    if insecure:
        raise UsageError("secret_file and insecure=True contradict each other: pass one of them")
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            secret = file.read(1 << 16).removesuffix(b"\n")
    except OSError as error:
        raise UsageError(f"secret_file {os.fspath(path)!r} cannot be read: {error.strerror}") from error
    if len(secret) < SECRET_BYTES_MIN:
        text = f"secret_file {os.fspath(path)!r} holds {len(secret)} bytes of at least {SECRET_BYTES_MIN}"
        raise UsageError(
            f"{text}; make one: (umask 077; head -c 32 /dev/urandom | base64 > {os.fspath(path)})"
        )
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        text = f"secret_file {os.fspath(path)!r} may be read or written by everybody: chmod 600 it"
        warnings.warn(text, stacklevel=4)
    return secret
