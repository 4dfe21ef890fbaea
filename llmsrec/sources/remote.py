"""Remote files: the interface of a remote store, HTTP as one implementation, and retries."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import httpx

from llmsrec.core.errors import SourceError

CHUNK_BYTES = 1 << 20
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
ATTEMPTS = 6
RETRY_PAUSE = 0.5  # seconds before the second attempt; each further pause is twice as long

T = TypeVar("T")


class TransientError(Exception):
    """A request failed in a way that a retry may fix; a read may resume where it stopped."""


@dataclass(frozen=True)
class RemoteFile:
    """An existing file: `tag` changes with its content; `checksum` is (algorithm, hex digest) if the store has one."""

    address: str
    size: int | None  # bytes
    tag: str
    checksum: tuple[str, str] | None = None


@runtime_checkable
class Remote(Protocol):
    """A store of files, read by address. A missing file is None, a failure that a retry may fix a TransientError."""

    def find(self, address: str) -> RemoteFile | None: ...

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """The content from byte `start`; an empty first chunk means that it starts from byte 0 instead."""
        ...

    def read_text(self, address: str) -> str | None: ...

    def close(self) -> None: ...


def retry(attempt: Callable[[], T], address: str) -> T:
    """The result of `attempt`, repeated after a TransientError with exponential backoff; then SourceError."""
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except TransientError as error:
            if number == ATTEMPTS - 1:
                raise SourceError(
                    f"{address}: gave up after {ATTEMPTS} attempts ({error})"
                ) from None
            time.sleep(RETRY_PAUSE * 2**number)
    raise AssertionError("unreachable")


class HttpRemote:
    """Files over HTTP or HTTPS; 403, 404 and 410 mean that a file does not exist."""

    def __init__(self) -> None:
        # without compression in transit: size and tag would be those of the compressed content
        headers = {"accept-encoding": "identity"}
        self.client = httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers=headers)

    def find(self, address: str) -> RemoteFile | None:
        response = self._request("HEAD", address)
        if response is None:
            return None
        length = response.headers.get("content-length")
        tag = response.headers.get("etag") or response.headers.get("last-modified") or ""
        return RemoteFile(address, int(length) if length else None, tag)

    def read(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        headers = {}
        if start and file.tag:  # without a tag, the local part may be of another version
            headers = {"range": f"bytes={start}-", "if-range": file.tag}
        try:
            with self.client.stream("GET", file.address, headers=headers) as response:
                if response.status_code == 416:  # the file ends at `start`
                    return
                _raise_for_status(response, file.address)
                if start and response.status_code != 206:
                    yield b""
                yield from response.iter_raw(CHUNK_BYTES)
        except httpx.TransportError as error:
            raise TransientError(f"{type(error).__name__}: {error}") from None

    def read_text(self, address: str) -> str | None:
        response = self._request("GET", address)
        return None if response is None else response.text

    def close(self) -> None:
        self.client.close()

    def _request(self, method: str, address: str) -> httpx.Response | None:
        """The response, or None if there is no such file."""
        try:
            response = self.client.request(method, address)
        except httpx.TransportError as error:
            raise TransientError(f"{type(error).__name__}: {error}") from None
        if response.status_code in (403, 404, 410):
            return None
        _raise_for_status(response, address)
        return response


def _raise_for_status(response: httpx.Response, address: str) -> None:
    if response.status_code in (408, 429) or response.status_code >= 500:
        raise TransientError(f"the server answered {response.status_code}")
    if response.status_code >= 400:
        raise SourceError(f"{address}: the server answered {response.status_code}")
