"""S3 as a remote store: read, upload, list, move. The only module that imports boto3."""

import base64
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from llmsrec.core.errors import SourceError
from llmsrec.core.files import sha256
from llmsrec.sources.remote import CHUNK_BYTES, RemoteFile, TransientError, retry


class S3Remote:
    """Credentials and endpoint come from the environment or the AWS profile only."""

    def __init__(self) -> None:
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # any region serves reads by name
        config = Config(retries={"max_attempts": 5, "mode": "standard"})
        try:
            self.client = boto3.Session().client("s3", config=config)
        except BotoCoreError as error:  # an unknown profile or a malformed endpoint
            raise SourceError(f"the S3 settings of the environment are invalid: {error}") from None

    def find(self, address: str) -> RemoteFile | None:
        bucket, key = split_address(address)
        try:
            head = self._call("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
        except FileNotFoundError:
            return None
        checksum = None
        if head.get("ChecksumSHA256") and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            checksum = ("sha256", base64.b64decode(head["ChecksumSHA256"]).hex())
        elif "-" not in head["ETag"] and head.get("ServerSideEncryption") != "aws:kms":
            checksum = ("md5", head["ETag"].strip('"'))  # of an object uploaded in one part
        return RemoteFile(address, head["ContentLength"], head["ETag"], checksum)

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        bucket, key = split_address(file.address)
        options = {"Bucket": bucket, "Key": key, "IfMatch": file.tag, "Range": f"bytes={start}-"}
        try:
            yield from self._call("get_object", **options)["Body"].iter_chunks(CHUNK_BYTES)
        except (BotoCoreError, OSError) as error:
            raise TransientError(f"{type(error).__name__}: {error}") from None

    def read_text(self, address: str) -> str | None:
        bucket, key = split_address(address)
        try:
            body: bytes = self._call("get_object", Bucket=bucket, Key=key)["Body"].read()
        except FileNotFoundError:
            return None
        return body.decode()

    def close(self) -> None:
        self.client.close()

    def upload(self, file: Path, address: str) -> None:
        """Send a file with its checksum; SourceError unless the object has its size and sha256."""
        bucket, key = split_address(address)
        digest = sha256(file)
        encoded = base64.b64encode(bytes.fromhex(digest)).decode()
        with file.open("rb") as body:
            checksum = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": encoded}
            self._call("put_object", Bucket=bucket, Key=key, Body=body, **checksum)
        uploaded = self.find(address)
        size = file.stat().st_size
        if uploaded is None or (uploaded.size, uploaded.checksum) != (size, ("sha256", digest)):
            raise SourceError(f"{address} does not hold the content of {file}: upload it again")

    def list_files(self, address: str) -> list[tuple[RemoteFile, float]]:
        """The objects directly below an address, with their modification time in seconds."""
        bucket, key = split_address(address)
        options = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/", "Delimiter": "/"}
        files: list[tuple[RemoteFile, float]] = []
        while True:
            try:
                page = self._call("list_objects_v2", **options)
            except FileNotFoundError:
                raise SourceError(f"{address}: there is no bucket '{bucket}'") from None
            for entry in page.get("Contents", []):
                if not entry["Key"].endswith("/"):
                    file = RemoteFile(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"])
                    files.append((file, entry["LastModified"].timestamp()))
            if not page.get("IsTruncated"):
                return files
            options["ContinuationToken"] = page["NextContinuationToken"]

    def move(self, file: RemoteFile, address: str, digest: str) -> None:
        """Copy the object, check the copy's sha256, then delete the original unless it has changed since."""
        (bucket, key), (to_bucket, to_key) = split_address(file.address), split_address(address)
        source = {"CopySource": {"Bucket": bucket, "Key": key}, "CopySourceIfMatch": file.tag}
        target = {"Bucket": to_bucket, "Key": to_key, "ChecksumAlgorithm": "SHA256"}
        self._call("copy_object", **target, **source)
        copy = self.find(address)
        if copy is None or copy.checksum != ("sha256", digest):
            raise SourceError(
                f"{address} does not hold the content of {file.address}: move it again"
            )
        current = self.find(file.address)
        if current is not None and current.tag == file.tag:
            self._call("delete_object", Bucket=bucket, Key=key)

    def write_text(self, address: str, text: str) -> None:
        bucket, key = split_address(address)
        self._call("put_object", Bucket=bucket, Key=key, Body=text.encode())

    def _call(self, operation: str, **arguments: Any) -> Any:
        """Call the client; FileNotFoundError for 404, TransientError where a retry may help, else SourceError."""
        address = f"s3://{arguments['Bucket']}/{arguments.get('Key', arguments.get('Prefix'))}"
        try:
            return getattr(self.client, operation)(**arguments)
        except NoCredentialsError:
            raise SourceError(
                f"{address}: no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE "
                "(and AWS_ENDPOINT_URL for another endpoint)"
            ) from None
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 404:
                raise FileNotFoundError(address) from None
            if status >= 500:
                raise TransientError(str(error)) from None
            raise SourceError(f"{address}: {error}") from None
        except BotoCoreError as error:
            raise TransientError(str(error)) from None


def upload(files: list[Path], address: str) -> list[str]:
    """Upload files below an S3 address, each verified; returns their addresses."""
    targets = [f"{address.rstrip('/')}/{file.name}" for file in files]
    with closing(S3Remote()) as remote:
        for file, target in zip(files, targets, strict=True):
            retry(lambda file=file, target=target: remote.upload(file, target), target)  # type: ignore[misc]
    return targets


def split_address(address: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    parts = urlsplit(address)
    key = parts.path.lstrip("/")
    if parts.scheme != "s3" or not parts.netloc or not key:
        raise SourceError(f"'{address}' is not an S3 address: expected s3://bucket/prefix")
    return parts.netloc, key
