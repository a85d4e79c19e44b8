"""Which argument is a remote, and the store behind it; fsspec is imported by the first that needs it."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UsageError
from .remote_store import RemoteStore

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)(://|::)")
_S3 = ("s3", "s3a")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether it begins with a scheme, as `s3://` and `simplecache::` do."""
    return isinstance(path, str) and _SCHEME.match(path) is not None


def places(path: str | os.PathLike[str], local: str | os.PathLike[str] | None) -> tuple[str | None, Path]:
    """The URL of the remote, if there is one, and the local folder."""
    if not is_url(path):
        if local is not None:
            raise UsageError(f"local={local!r} is for a remote: give its URL first, such as s3://bucket/run7")
        return None, Path(path)
    if local is None:
        raise UsageError(f"{path} is a remote: give the folder where steps are written first, as local=")
    if is_url(local):
        raise UsageError(f"local={local!r}: a folder of this host")
    return str(path), Path(local)


def open_store(url: str, options: Mapping[str, Any] | None = None) -> RemoteStore:
    """The store at a URL; nothing is sent yet.

    options: those of fsspec for this kind of store, such as {"endpoint_url": "http://...", "key": ...,
    "secret": ...}
    Raises UsageError for what is no URL of a known kind, CheckpointError where a package is missing.
    """
    match = _SCHEME.match(url)
    if match is None or not url[match.end() :].strip("/"):
        raise UsageError(f"remote {url!r}: give a URL with a place in it, such as s3://bucket/run7")
    _need("fsspec", url)
    if match[1].lower() in _S3:
        _need("s3fs", url)
        from .s3_store import S3Store

        return S3Store(url, dict(options or {}))
    from .fsspec_store import FsspecStore

    return FsspecStore(url, dict(options or {}))


def _need(package: str, url: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise CheckpointError(
            f"{url} needs {package}, which cannot be imported ({error}): pip install 'pccl-py[remote]'"
        ) from None
