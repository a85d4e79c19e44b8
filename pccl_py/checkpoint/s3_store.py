"""S3 and what speaks its protocol: objects in parts that survive their sender, puts with conditions."""

from __future__ import annotations

import hashlib
from typing import Any

import fsspec.asyn  # type: ignore[import-untyped]

from .fsspec_store import FsspecStore
from .remote_store import Gone

DELETED_AT_ONCE = 1000  # what one request takes


class S3Store(FsspecStore):
    resumes = True
    parallel = 3
    part_bytes_min = 5 << 20
    parts_max = 10_000

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        defaults = {"retries": {"max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60}
        options["config_kwargs"] = defaults | options.get("config_kwargs", {})
        super().__init__(url, options)
        self.fs.retries = 1  # `patience` tries again, and says so
        self._bucket, _, self._prefix = self.root.partition("/")

    def read_tagged(self, name: str) -> tuple[bytes, str] | None:
        try:
            answer = self._call("get_object", name)
        except FileNotFoundError:
            return None
        return bytes(fsspec.asyn.sync(self.fs.loop, answer["Body"].read)), str(answer["ETag"])

    def put_if(self, name: str, data: bytes, was: str | None) -> str | None:
        condition = {"IfNoneMatch": "*"} if was is None else {"IfMatch": was}
        try:
            return str(self._call("put_object", name, Body=data, **condition)["ETag"])
        except Exception as error:
            code = code_of(error)
            if code in ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"):
                return None
            if code in ("NotImplemented", "InvalidArgument"):  # an older server of that protocol
                return self._put_after_look(name, data, was)
            raise

    def _put_after_look(self, name: str, data: bytes, was: str | None) -> str | None:
        found = self.read_tagged(name)
        if (found[1] if found else None) != was:
            return None
        return str(self._call("put_object", name, Body=data)["ETag"])

    def put(self, name: str, data: bytes) -> None:
        self._call("put_object", name, Body=data)

    def delete(self, names: list[str]) -> None:
        for begin in range(0, len(names), DELETED_AT_ONCE):
            keys = [{"Key": self._key(name)} for name in names[begin : begin + DELETED_AT_ONCE]]
            answer = self.fs.call_s3(
                "delete_objects", Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True}
            )
            if errors := answer.get("Errors"):
                raise OSError(f"cannot delete {errors[0].get('Key')}: {errors[0].get('Message')}")

    def send(self, name: str, mark: str = "") -> InParts:  # type: ignore[override]
        if mark:
            self.of_upload("list_parts", name, UploadId=mark, MaxParts=1)
        else:
            mark = self._call("create_multipart_upload", name)["UploadId"]
        return InParts(self, name, mark)

    def finished(self, name: str, tags: list[str]) -> bool:
        """By the tag that S3 gives to what is made of parts; other tags are not known again, and sent
        again."""
        try:
            sums = b"".join(bytes.fromhex(tag.strip('"')) for tag in tags)
            there = self.fs.info(self.path(name), refresh=True)["ETag"]
        except (FileNotFoundError, ValueError):
            return False
        return bool(there.strip('"') == f"{hashlib.md5(sums, usedforsecurity=False).hexdigest()}-{len(tags)}")

    def of_upload(self, method: str, name: str, **arguments: Any) -> Any:
        """A call about parts. Raises Gone where the store does not know them any more."""
        try:
            return self._call(method, name, **arguments)
        except Exception as error:
            code = code_of(error)
            if code == "NoSuchUpload" or (
                code and method != "list_parts" and not self._known(name, arguments)
            ):
                raise Gone(name) from None
            raise

    def _known(self, name: str, arguments: dict[str, Any]) -> bool:
        """Some servers answer a part of an upload that they have lost by an internal error."""
        try:
            self._call("list_parts", name, UploadId=arguments["UploadId"], MaxParts=1)
        except Exception as error:
            return code_of(error) != "NoSuchUpload"
        return True

    def unfinished(self) -> list[tuple[str, str]]:
        answer = self.fs.call_s3("list_multipart_uploads", Bucket=self._bucket, Prefix=self._key(""))
        skip = len(self._key(""))
        return [(upload["Key"][skip:], upload["UploadId"]) for upload in answer.get("Uploads", [])]

    def abort(self, name: str, mark: str) -> None:
        self._call("abort_multipart_upload", name, UploadId=mark)

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _call(self, method: str, name: str, **arguments: Any) -> Any:
        return self.fs.call_s3(method, Bucket=self._bucket, Key=self._key(name), **arguments)


class InParts:
    """A multipart upload."""

    def __init__(self, store: S3Store, name: str, mark: str) -> None:
        self._store, self._name, self.mark = store, name, mark

    def part(self, number: int, data: bytes) -> str:
        answer = self._store.of_upload(
            "upload_part", self._name, UploadId=self.mark, PartNumber=number, Body=data
        )
        return str(answer["ETag"])

    def finish(self, tags: list[str]) -> None:
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        self._store.of_upload(
            "complete_multipart_upload", self._name, UploadId=self.mark, MultipartUpload={"Parts": parts}
        )

    def abandon(self) -> None:
        self._store.abort(self._name, self.mark)


def code_of(error: BaseException | None) -> str:
    """S3's own word for an error, wherever the layers between have put it; "": there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
        error = error.__cause__
    return ""
