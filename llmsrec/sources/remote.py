"""Files over HTTP and S3: looked up, read from any byte on, and uploaded; on S3 also listed and moved."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import boto3
import httpx
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from llmsrec.core.errors import SourceError
from llmsrec.core.files import sha256

CHUNK = 1 << 20
TIMEOUT = httpx.Timeout(30.0, connect=10.0)


class Interrupted(Exception):
    """A transfer broke off; it may be tried again from where it stopped."""


@dataclass(frozen=True)
class Found:
    """A file that exists: `tag` changes with its content, `checksum` is (algorithm, hex digest) where one is stated."""

    address: str
    size: int | None
    tag: str
    checksum: tuple[str, str] | None = None


@runtime_checkable
class Remote(Protocol):
    def find(self, address: str) -> Found | None: ...

    def read(self, file: Found, start: int) -> Iterator[bytes]:
        """The bytes from `start` on; if the server cannot start there, an empty chunk comes first, then all."""
        ...

    def text(self, address: str) -> str | None: ...

    def close(self) -> None: ...


class HttpRemote:
    def __init__(self) -> None:
        # files as they are, not packed on the way: sizes and tags would be those of the packed ones
        headers = {"accept-encoding": "identity"}
        self.client = httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers=headers)

    def find(self, address: str) -> Found | None:
        response = self._answer(lambda: self.client.head(address), address)
        if response is None:
            return None
        length = response.headers.get("content-length")
        tag = response.headers.get("etag") or response.headers.get("last-modified") or ""
        return Found(address, int(length) if length else None, tag)

    def read(self, file: Found, start: int) -> Iterator[bytes]:
        headers = {}
        if start and file.tag:  # without a tag, what is there may be of another version
            headers = {"range": f"bytes={start}-", "if-range": file.tag}
        try:
            with self.client.stream("GET", file.address, headers=headers) as response:
                if response.status_code == 416:  # nothing comes after `start`
                    return
                self._judge(response, file.address)
                if start and response.status_code != 206:
                    yield b""
                yield from response.iter_raw(CHUNK)
        except httpx.TransportError as error:
            raise Interrupted(f"{type(error).__name__}: {error}") from None

    def text(self, address: str) -> str | None:
        response = self._answer(lambda: self.client.get(address), address)
        return None if response is None else response.text

    def close(self) -> None:
        self.client.close()

    def _answer(self, ask: Any, address: str) -> httpx.Response | None:
        try:
            response: httpx.Response = ask()
        except httpx.TransportError as error:
            raise Interrupted(f"{type(error).__name__}: {error}") from None
        if response.status_code in (403, 404, 410):
            return None
        self._judge(response, address)
        return response

    @staticmethod
    def _judge(response: httpx.Response, address: str) -> None:
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise Interrupted(f"the server answered {response.status_code}")
        if response.status_code >= 400:
            raise SourceError(f"{address}: the server answered {response.status_code}")


class S3Remote:
    """Credentials and endpoint come from the environment or the AWS profile, nowhere else."""

    def __init__(self) -> None:
        config = Config(retries={"max_attempts": 5, "mode": "standard"})
        try:
            self.client = boto3.Session().client("s3", config=config)
        except BotoCoreError as error:  # a profile or endpoint that cannot be
            raise SourceError(f"S3 cannot be reached as the environment says: {error}") from None

    def find(self, address: str) -> Found | None:
        bucket, key = split_address(address)
        try:
            head = self._call("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except FileNotFoundError:
            return None
        checksum = None
        if head.get("ChecksumSHA256") and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            checksum = ("sha256", base64.b64decode(head["ChecksumSHA256"]).hex())
        elif "-" not in head["ETag"] and head.get("ServerSideEncryption") != "aws:kms":
            checksum = ("md5", head["ETag"].strip('"'))  # of an object sent in one part
        return Found(address, head["ContentLength"], head["ETag"], checksum)

    def read(self, file: Found, start: int) -> Iterator[bytes]:
        bucket, key = split_address(file.address)
        where = {"Bucket": bucket, "Key": key, "IfMatch": file.tag, "Range": f"bytes={start}-"}
        try:
            yield from self._call("get_object", **where)["Body"].iter_chunks(CHUNK)
        except (BotoCoreError, OSError) as error:
            raise Interrupted(f"{type(error).__name__}: {error}") from None

    def text(self, address: str) -> str | None:
        bucket, key = split_address(address)
        try:
            body: bytes = self._call("get_object", Bucket=bucket, Key=key)["Body"].read()
        except FileNotFoundError:
            return None
        return body.decode()

    def close(self) -> None:
        self.client.close()

    def upload(self, file: Path, address: str) -> None:
        """Send a file with its checksum, then read both back."""
        bucket, key = split_address(address)
        digest = base64.b64encode(bytes.fromhex(sha256(file))).decode()
        with file.open("rb") as body:
            checksum = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": digest}
            self._call("put_object", Bucket=bucket, Key=key, Body=body, **checksum)
        found = self.find(address)
        if (
            found is None
            or found.size != file.stat().st_size
            or found.checksum != ("sha256", sha256(file))
        ):
            raise SourceError(f"{address} does not hold what was sent from {file}: upload again")

    def files(self, address: str) -> list[tuple[Found, float]]:
        """The objects right below an address, with the time of their last change."""
        bucket, key = split_address(address)
        prefix, found = f"{key.rstrip('/')}/", []
        after: dict[str, str] = {}
        while True:
            where = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/"}
            try:
                page = self._call("list_objects_v2", **where, **after)
            except FileNotFoundError:
                raise SourceError(f"{address}: there is no bucket '{bucket}'") from None
            for held in page.get("Contents", []):
                file = Found(f"s3://{bucket}/{held['Key']}", held["Size"], held["ETag"])
                found.append((file, held["LastModified"].timestamp()))
            if not page.get("IsTruncated"):
                return [(file, time) for file, time in found if not file.address.endswith("/")]
            after = {"ContinuationToken": page["NextContinuationToken"]}

    def move(self, file: Found, address: str, digest: str) -> None:
        """Copy, compare the copy's sha256, then delete; a file that has changed since stays."""
        (source, name), (bucket, key) = split_address(file.address), split_address(address)
        where = {"CopySource": {"Bucket": source, "Key": name}, "CopySourceIfMatch": file.tag}
        self._call("copy_object", Bucket=bucket, Key=key, ChecksumAlgorithm="SHA256", **where)
        copied = self.find(address)
        if copied is None or copied.checksum != ("sha256", digest):
            raise SourceError(f"{address} does not hold what {file.address} held: move it again")
        now = self.find(file.address)
        if now is not None and now.tag == file.tag:
            self._call("delete_object", Bucket=source, Key=name)

    def write(self, address: str, text: str) -> None:
        bucket, key = split_address(address)
        self._call("put_object", Bucket=bucket, Key=key, Body=text.encode())

    def _call(self, name: str, **arguments: Any) -> Any:
        where = f"s3://{arguments['Bucket']}/{arguments.get('Key', arguments.get('Prefix'))}"
        try:
            return getattr(self.client, name)(**arguments)
        except NoCredentialsError:
            raise SourceError(
                f"{where}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE "
                "(and AWS_ENDPOINT_URL for another endpoint)"
            ) from None
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                raise FileNotFoundError(where) from None
            if status >= 500:
                raise Interrupted(str(error)) from None
            raise SourceError(f"{where}: {error}") from None
        except BotoCoreError as error:
            raise Interrupted(str(error)) from None


def split_address(address: str) -> tuple[str, str]:
    parts = urlsplit(address)
    key = parts.path.lstrip("/")
    if parts.scheme != "s3" or not parts.netloc or not key:
        raise SourceError(f"'{address}' is no address on S3: s3://bucket/prefix is expected")
    return parts.netloc, key


def open_remote(address: str) -> Remote:
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # any will do for reading by name
    return S3Remote() if address.startswith("s3://") else HttpRemote()
