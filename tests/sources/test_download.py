"""Raw files are fetched completely and verified or not at all: from folders, real HTTP and S3 servers, the sample."""

import base64
import gzip
import hashlib
import random
import re
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmsrec.core.errors import SourceError
from llmsrec.sources import download, remote
from llmsrec.sources.download import fetch
from llmsrec.sources.s3 import S3Remote, upload

MIB = 1 << 20
PARTS = ("train", "valid", "test")


def gzipped(seed: int, size: int = 3_000_000) -> bytes:
    """A gzip of about `size` bytes."""
    return gzip.compress(random.Random(seed).randbytes(size), compresslevel=1, mtime=0)


BODY, OTHER = gzipped(1), gzipped(2)
SMALL = gzipped(3, 1_000)


@dataclass
class Site:
    """An HTTP server: its files, its faults, and the requests it received."""

    files: dict[str, bytes] = field(default_factory=dict)
    address: str = ""
    ranges: bool = True
    tags: bool = True
    sizes: bool = True  # HEAD sends content-length
    compresses: bool = False  # sends gzip to clients that accept it
    announced: dict[str, int] = field(default_factory=dict)  # false sizes in HEAD
    statuses: list[int] = field(default_factory=list)  # of the next responses
    drops: list[int] = field(default_factory=list)  # bytes after which the next long responses end
    at_drop: Callable[[], object] = lambda: None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def reads(self, path: str) -> list[str | None]:
        """The requested ranges of a file, in order."""
        return [
            range_header
            for method, name, range_header in self.requests
            if (method, name) == ("GET", path)
        ]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site: Site = self.server.site
        site.requests.append((self.command, self.path, self.headers["range"]))
        if site.statuses:
            return self.reply(site.statuses.pop(0), b"")
        if self.path not in site.files:
            return self.reply(404, b"<html>not found</html>")
        content = site.files[self.path]
        headers = {}
        if site.compresses and "gzip" in self.headers.get("accept-encoding", ""):
            content, headers["content-encoding"] = gzip.compress(content), "gzip"
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        if site.tags:
            headers["etag"] = tag
        start = 0
        span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", ""))
        if site.ranges and span and self.headers.get("if-range", tag) == tag:
            start = int(span[1])
            if start >= len(content):
                return self.reply(416, b"")
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.reply(206 if start else 200, content[start:], headers)

    do_HEAD = do_GET

    def reply(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        site: Site = self.server.site
        size = len(content)
        if self.command == "HEAD":
            size, content = site.announced.get(self.path, size), b""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.command == "GET" or site.sizes:
            self.send_header("content-length", str(size))
        else:
            self.send_header("connection", "close")
        self.end_headers()
        if site.drops and len(content) > site.drops[0]:
            self.wfile.write(content[: site.drops.pop(0)])
            site.at_drop()
            self.close_connection = True
            return
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    site: Site

    def handle_error(self, *_: object) -> None:
        """Ignore the broken pipe of a killed client."""


@pytest.fixture
def site() -> Iterator[Site]:
    with Server(("127.0.0.1", 0), Handler) as server:
        server.site = Site(address=f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.site
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "RETRY_PAUSE", 0.0001)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store"


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder except hidden ones."""
    if not folder.is_dir():
        return {}
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


def leftovers(folder: Path) -> list[str]:
    return [file.name for file in folder.parent.rglob(".*")]


def error_of(source: str, folder: Path) -> str:
    """The message of the failed fetch, one line; no file was added or changed."""
    before = contents(folder)
    with pytest.raises(SourceError) as caught:
        fetch("store", source, folder)
    assert contents(folder) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- HTTP ---


def test_reviews_and_metadata_are_fetched_unchanged(site: Site, folder: Path) -> None:
    site.files = {"/a/store.jsonl.gz": BODY, "/a/meta_store.jsonl.gz": SMALL}
    files = fetch("store", f"{site.address}/a/", folder)
    assert files == [folder / "store.jsonl.gz", folder / "meta_store.jsonl.gz"]
    assert contents(folder) == {"store.jsonl.gz": BODY, "meta_store.jsonl.gz": SMALL}
    assert leftovers(folder) == []


def test_a_dropped_connection_is_resumed(site: Site, folder: Path) -> None:
    site.files = {"/store.jsonl.gz": BODY}
    site.drops = [1_500_000, 1_200_000]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    # the partial file grows in chunks of a MiB
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={MIB}-", f"bytes={2 * MIB}-"]


def test_a_server_without_ranges_starts_over(site: Site, folder: Path) -> None:
    site.files, site.ranges, site.drops = {"/store.jsonl.gz": BODY}, False, [1_500_000]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={MIB}-"]


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changes_during_the_download_is_not_mixed_with_the_old_one(
    site: Site, folder: Path, tags: bool
) -> None:
    site.files, site.tags, site.drops = {"/store.jsonl": bytes(3 * MIB)}, tags, [2 * MIB]
    changed = b"x" * (3 * MIB)
    site.at_drop = lambda: site.files.update({"/store.jsonl": changed})
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl": changed}


def test_a_shorter_new_file_is_not_followed_by_bytes_of_the_old_one(
    site: Site, folder: Path
) -> None:
    site.files, site.sizes, site.drops = {"/store.jsonl": bytes(3 * MIB)}, False, [2 * MIB]
    site.at_drop = lambda: site.files.update({"/store.jsonl": b"short\n"})
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl": b"short\n"}


def test_a_file_that_changed_between_two_runs_is_not_mixed_with_the_old_one(
    site: Site, folder: Path
) -> None:
    site.files = {"/store.jsonl": bytes(3 * MIB)}
    site.drops = [2 * MIB]
    site.at_drop = lambda: site.statuses.extend([503] * remote.ATTEMPTS)
    assert "gave up" in error_of(site.address, folder)
    changed = b"x" * (3 * MIB)
    site.files = {"/store.jsonl": changed}
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl": changed}


def test_the_next_run_resumes_where_one_gave_up(site: Site, folder: Path) -> None:
    site.files, site.drops = {"/store.jsonl.gz": BODY}, [2 * MIB]
    site.at_drop = lambda: site.statuses.extend([503] * remote.ATTEMPTS)
    error_of(site.address, folder)
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz")[-1] == f"bytes={2 * MIB}-"
    assert leftovers(folder) == []


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_transient_errors_are_retried(site: Site, folder: Path, status: int) -> None:
    site.files, site.statuses = {"/store.jsonl.gz": SMALL}, [status, status]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": SMALL}


@pytest.mark.parametrize("status", [500, 503])
def test_a_permanent_server_error_ends_the_retries(site: Site, folder: Path, status: int) -> None:
    site.files, site.statuses = {"/store.jsonl.gz": SMALL}, [status] * 100
    assert error_of(site.address, folder) == (
        f"{site.address}/store.jsonl.gz: gave up after 6 attempts (the server answered {status})"
    )
    assert len(site.requests) == remote.ATTEMPTS


def test_a_client_error_is_not_retried(site: Site, folder: Path) -> None:
    site.files, site.statuses = {"/store.jsonl.gz": SMALL}, [401]
    assert error_of(site.address, folder).endswith("/store.jsonl.gz: the server answered 401")


def test_an_unreachable_server_ends_the_retries(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    message = error_of(address, folder)
    assert message.startswith(f"{address}/store.jsonl.gz: gave up after 6 attempts (ConnectError")


def test_the_error_for_missing_files_lists_the_names_that_were_tried(
    site: Site, folder: Path
) -> None:
    message = error_of(f"{site.address}/here", folder)
    for name in ("store.jsonl.gz", "store.jsonl", "store.csv.gz", "store.csv", "store.train.csv"):
        assert f"{site.address}/here/{name}" in message


def test_metadata_is_optional(site: Site, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.files = {"/store.jsonl": b"{}\n"}
    assert fetch("store", site.address, folder) == [folder / "store.jsonl"]
    assert "items will have placeholder titles" in capsys.readouterr().out


def test_more_bytes_than_announced_are_refused(site: Site, folder: Path) -> None:
    site.files = {"/store.jsonl": b"x" * 1000}
    site.announced = {"/store.jsonl": 900}
    assert "1000 bytes were received, 900 were announced" in error_of(site.address, folder)
    assert leftovers(folder) == []


def test_fewer_bytes_than_announced_are_refused(site: Site, folder: Path) -> None:
    site.files = {"/store.jsonl": b"x" * 1000}
    site.announced = {"/store.jsonl": 1100}
    assert "gave up after 6 attempts (the connection closed early)" in error_of(
        site.address, folder
    )


def test_a_file_of_unknown_size_is_resumed(site: Site, folder: Path) -> None:
    site.files, site.sizes, site.drops = {"/store.jsonl.gz": BODY}, False, [2 * MIB]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={2 * MIB}-"]


def test_a_complete_partial_file_of_unknown_size_is_not_fetched_again(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    site.files, site.sizes = {"/store.jsonl.gz": BODY}, False
    publish = download._publish
    monkeypatch.setattr(download, "_publish", interrupt)  # just before the rename
    with pytest.raises(KeyboardInterrupt):
        fetch("store", site.address, folder)
    monkeypatch.setattr(download, "_publish", publish)
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={len(BODY)}-"]


def test_a_server_that_compresses_responses_sends_the_file_unchanged(
    site: Site, folder: Path
) -> None:
    content = b"user_id,parent_asin,timestamp\n" + b"u,i,1\n" * 10_000
    site.files, site.compresses = {"/store.csv": content}, True
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.csv": content}


@pytest.mark.parametrize("spelling", ["{}", "{}  store.jsonl.gz\n", "{:upper} *store.jsonl.gz\n"])
def test_a_matching_published_checksum_is_accepted(site: Site, folder: Path, spelling: str) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    published = spelling.replace("{:upper}", digest.upper()).replace("{}", digest)
    site.files = {"/store.jsonl.gz": BODY, "/store.jsonl.gz.sha256": published.encode()}
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}


def test_a_file_with_another_checksum_than_the_published_one_is_refused(
    site: Site, folder: Path
) -> None:
    published = hashlib.sha256(OTHER).hexdigest().encode()
    site.files = {"/store.jsonl.gz": BODY, "/store.jsonl.gz.sha256": published}
    message = error_of(site.address, folder)
    assert message == (
        f"{site.address}/store.jsonl.gz: the sha256 differs from the published one; the file was discarded"
    )
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    "damaged",
    [
        BODY[:-1000],
        BODY[: len(BODY) // 2],
        BODY[:1_000_000] + bytes([BODY[1_000_000] ^ 1]) + BODY[1_000_001:],
        b"<html>not found</html>",
    ],
    ids=["end missing", "half missing", "one bit", "not a gzip"],
)
def test_a_damaged_gzip_is_refused(site: Site, folder: Path, damaged: bytes) -> None:
    site.files = {"/store.jsonl.gz": damaged}
    assert error_of(site.address, folder).startswith("store.jsonl.gz is a damaged gzip (")
    assert leftovers(folder) == []


def test_an_existing_file_is_kept_and_not_fetched(
    site: Site, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published = hashlib.sha256(BODY).hexdigest().encode()
    site.files = {"/store.jsonl.gz": BODY, "/store.jsonl.gz.sha256": published}
    fetch("store", site.address, folder)
    written = (folder / "store.jsonl.gz").stat()
    assert fetch("store", site.address, folder) == [folder / "store.jsonl.gz"]
    assert f"kept {folder / 'store.jsonl.gz'}: unchanged" in capsys.readouterr().out
    assert (folder / "store.jsonl.gz").stat().st_mtime_ns == written.st_mtime_ns
    assert site.reads("/store.jsonl.gz") == [None]


@pytest.mark.parametrize("published", [True, False])
def test_a_file_with_other_content_is_never_overwritten(
    site: Site, folder: Path, published: bool
) -> None:
    folder.mkdir(parents=True)
    (folder / "store.jsonl.gz").write_bytes(SMALL)
    site.files = {"/store.jsonl.gz": BODY}
    if published:
        site.files["/store.jsonl.gz.sha256"] = hashlib.sha256(BODY).hexdigest().encode()
    assert "exists with other content" in error_of(site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": SMALL}


def test_the_whole_name_of_an_amazon_store_is_looked_up(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "AMAZON", site.address)
    site.files = {
        "/raw/review_categories/store.jsonl.gz": BODY,
        "/raw/meta_categories/meta_store.jsonl.gz": SMALL,
    }
    fetch("store", "amazon", folder)
    assert contents(folder) == {"store.jsonl.gz": BODY, "meta_store.jsonl.gz": SMALL}


@pytest.mark.parametrize("kind", ["csv", "csv.gz"])
def test_a_ready_split_has_three_files(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(download, "AMAZON", site.address)
    parts = {
        f"store.{part}.{kind}": gzipped(10 + number, 2_000) for number, part in enumerate(PARTS)
    }
    site.files = {f"/benchmark/5core/last_out/{name}": body for name, body in parts.items()}
    site.files["/raw/meta_categories/meta_store.jsonl.gz"] = SMALL
    files = fetch("store", "amazon-5core", folder)
    assert [file.name for file in files] == [*parts, "meta_store.jsonl.gz"]
    assert contents(folder) == {**parts, "meta_store.jsonl.gz": SMALL}


def test_a_ready_split_is_fetched_from_any_address(site: Site, folder: Path) -> None:
    parts = {f"store.{part}.csv": part.encode() for part in PARTS}
    site.files = {f"/{name}": body for name, body in parts.items()}
    fetch("store", site.address, folder)
    assert contents(folder) == parts


def test_an_incomplete_ready_split_is_refused_before_any_file_is_fetched(
    site: Site, folder: Path
) -> None:
    site.files = {"/store.train.csv": b"x", "/store.test.csv": b"x"}
    assert f"{site.address}/store.valid.csv" in error_of(site.address, folder)


def test_a_rerun_after_a_kill_gives_the_same_bytes(
    site: Site, folder: Path, tmp_path: Path
) -> None:
    site.files, site.drops = {"/store.jsonl.gz": BODY}, [2_500_000]
    killed = threading.Event()
    site.at_drop = lambda: killed.wait(60)
    (tmp_path / "params.yaml").write_text(f"datasets:\n  store: {site.address}\n")
    command = [sys.executable, "-m", "llmsrec.stages.download", "--dataset", "store"]
    command += ["--params", str(tmp_path / "params.yaml"), "--out", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(file.stat().st_size >= 2 * MIB for file in folder.glob(".*.partial")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed.set()
    assert contents(folder) == {}
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={2 * MIB}-"]
    assert leftovers(folder) == []


# --- S3 ---


def put(s3: Any, **arguments: Any) -> None:
    s3.put_object(Bucket="bucket", **arguments)


def put_multipart(s3: Any, key: str, body: bytes) -> None:
    """Upload in two parts, as for large files: the ETag is then not the md5 of the content."""
    target = {"Bucket": "bucket", "Key": key}
    upload_id = s3.create_multipart_upload(**target)["UploadId"]
    parts = []
    for part, piece in enumerate((body[: 5 * MIB], body[5 * MIB :]), start=1):
        uploaded = s3.upload_part(**target, UploadId=upload_id, PartNumber=part, Body=piece)
        parts.append({"PartNumber": part, "ETag": uploaded["ETag"]})
    s3.complete_multipart_upload(**target, UploadId=upload_id, MultipartUpload={"Parts": parts})


@contextmanager
def relay(
    endpoint: tuple[str, int], cut: int, at_cut: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, list[str]]]:
    """A proxy of the endpoint that ends the first connection after `cut` response bytes.

    Yields its address and the list of requested ranges."""
    ranges: list[str] = []
    cuts = [cut]

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(endpoint) as upstream:
                sender = threading.Thread(target=self.send, args=(upstream,))
                sender.start()
                received = 0
                while data := upstream.recv(1 << 16):
                    received += len(data)
                    self.request.sendall(data)
                    if cuts and received > cuts[0]:
                        cuts.clear()
                        at_cut()
                        break
                for end in (self.request, upstream):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                sender.join()

        def send(self, upstream: socket.socket) -> None:
            with suppress(OSError):
                while data := self.request.recv(1 << 16):
                    ranges.extend(re.findall(r"(?i)\brange: (bytes=\S+)", data.decode("latin-1")))
                    upstream.sendall(data)
                upstream.shutdown(socket.SHUT_RDWR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "http://{}:{}".format(*server.server_address), ranges
        finally:
            server.shutdown()
            thread.join()


def test_files_are_fetched_unchanged_from_s3(s3: Any, folder: Path) -> None:
    put(s3, Key="raw/store.jsonl.gz", Body=BODY)
    put(s3, Key="raw/meta_store.jsonl.gz", Body=SMALL)
    files = fetch("store", "s3://bucket/raw/", folder)
    assert files == [folder / "store.jsonl.gz", folder / "meta_store.jsonl.gz"]
    assert contents(folder) == {"store.jsonl.gz": BODY, "meta_store.jsonl.gz": SMALL}
    assert leftovers(folder) == []
    assert fetch("store", "s3://bucket/raw", folder) == files


def test_a_dropped_transfer_from_s3_is_resumed(
    s3: Any, endpoint: tuple[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, Key="raw/store.jsonl.gz", Body=BODY)
    with relay(endpoint, cut=1_500_000) as (address, ranges):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fetch("store", "s3://bucket/raw", folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert ranges[0] == "bytes=0-"
    (resumed,) = ranges[1:]
    assert MIB <= int(resumed.removeprefix("bytes=").removesuffix("-")) < 1_600_000


def test_an_object_that_changes_during_the_download_is_not_mixed_with_the_old_one(
    s3: Any, endpoint: tuple[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, Key="raw/store.jsonl", Body=bytes(3 * MIB))
    changed = b"x" * (3 * MIB)

    def change() -> None:
        put(s3, Key="raw/store.jsonl", Body=changed)

    with relay(endpoint, cut=1_500_000, at_cut=change) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert "PreconditionFailed" in error_of("s3://bucket/raw", folder)
        fetch("store", "s3://bucket/raw", folder)
    assert contents(folder) == {"store.jsonl": changed}


def test_an_object_with_a_wrong_checksum_is_refused(s3: Any, folder: Path) -> None:
    wrong = base64.b64encode(hashlib.sha256(OTHER).digest()).decode()
    put(s3, Key="raw/store.jsonl.gz", Body=BODY, ChecksumAlgorithm="SHA256", ChecksumSHA256=wrong)
    assert "the sha256 differs from the published one" in error_of("s3://bucket/raw", folder)
    assert leftovers(folder) == []


@pytest.mark.parametrize("right", [True, False])
def test_a_multipart_object_is_verified_by_its_sha256_file(
    s3: Any, folder: Path, right: bool
) -> None:
    large = random.Random(4).randbytes(6 * MIB)
    put_multipart(s3, "raw/store.jsonl", large)
    published = hashlib.sha256(large if right else BODY).hexdigest()
    put(s3, Key="raw/store.jsonl.sha256", Body=f"{published}  store.jsonl\n".encode())
    if right:
        fetch("store", "s3://bucket/raw", folder)
        assert contents(folder) == {"store.jsonl": large}
    else:
        assert "the sha256 differs from the published one" in error_of("s3://bucket/raw", folder)


def test_an_object_never_overwrites_other_content(s3: Any, folder: Path) -> None:
    put(s3, Key="raw/store.jsonl", Body=b"new")
    folder.mkdir(parents=True)
    (folder / "store.jsonl").write_bytes(b"old")
    assert "exists with other content" in error_of("s3://bucket/raw", folder)
    assert contents(folder) == {"store.jsonl": b"old"}


@pytest.mark.parametrize("bucket", ["bucket", "unknown"])
def test_the_error_for_missing_objects_lists_the_names_that_were_tried(
    s3: Any, folder: Path, bucket: str
) -> None:
    message = error_of(f"s3://{bucket}/here", folder)
    assert message.startswith("no complete set of review files found; looked for ")
    assert f" s3://{bucket}/here/store.jsonl.gz, " in message


def test_without_credentials_the_error_says_what_to_set(
    s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    message = error_of("s3://bucket/raw", folder)
    assert message.startswith(
        "s3://bucket/raw/store.jsonl.gz: no AWS credentials; set AWS_ACCESS_KEY"
    )


def test_the_error_names_a_profile_that_does_not_exist(
    s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "unknown")
    assert "unknown" in error_of("s3://bucket/raw", folder)


@pytest.mark.parametrize("address", ["s3://", "s3:///store"])
def test_an_address_without_a_bucket_is_refused(s3: Any, folder: Path, address: str) -> None:
    assert error_of(address, folder).endswith("nor s3://bucket/prefix")


def test_uploads_can_be_read_back_with_their_checksum(s3: Any, tmp_path: Path) -> None:
    files = [tmp_path / "items.parquet", tmp_path / "manifest.json"]
    for file, body in zip(files, (BODY, b"{}"), strict=True):
        file.write_bytes(body)
    addresses = upload(files, "s3://bucket/vectors/")
    assert addresses == ["s3://bucket/vectors/items.parquet", "s3://bucket/vectors/manifest.json"]
    for key, body in (("vectors/items.parquet", BODY), ("vectors/manifest.json", b"{}")):
        response = s3.get_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED")
        assert response["Body"].read() == body
        assert base64.b64decode(response["ChecksumSHA256"]) == hashlib.sha256(body).digest()


def test_an_incomplete_upload_is_an_error(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = S3Remote._call

    def lossy(self: S3Remote, name: str, **arguments: Any) -> Any:
        if name == "put_object":
            arguments = {**arguments, "Body": arguments["Body"].read()[:-1]}
            del arguments["ChecksumAlgorithm"], arguments["ChecksumSHA256"]
        return call(self, name, **arguments)

    monkeypatch.setattr(S3Remote, "_call", lossy)
    (tmp_path / "x").write_bytes(BODY)
    with pytest.raises(SourceError, match=r"s3://bucket/x does not hold the content of .*: upload"):
        upload([tmp_path / "x"], "s3://bucket")


# --- folders and the sample ---


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A local folder as a source."""
    path = tmp_path / "source"
    path.mkdir()
    return path


def test_files_of_a_folder_are_copied(source: Path, folder: Path) -> None:
    (source / "store.jsonl.gz").write_bytes(BODY)
    (source / "meta_store.jsonl").write_bytes(b"{}\n")
    (source / "another.jsonl").write_bytes(b"{}\n")
    files = fetch("store", str(source), folder)
    assert files == [folder / "store.jsonl.gz", folder / "meta_store.jsonl"]
    assert contents(folder) == {"store.jsonl.gz": BODY, "meta_store.jsonl": b"{}\n"}
    assert (source / "store.jsonl.gz").read_bytes() == BODY
    assert fetch("store", str(source), folder) == files
    assert leftovers(folder) == []


@pytest.mark.parametrize("published", ["{}", "{:upper}  store.jsonl\n", " \n"])
def test_a_matching_checksum_file_is_accepted(source: Path, folder: Path, published: str) -> None:
    (source / "store.jsonl").write_bytes(b"{}\n")
    digest = hashlib.sha256(b"{}\n").hexdigest()
    line = published.replace("{:upper}", digest.upper()).replace("{}", digest)
    (source / "store.jsonl.sha256").write_text(line)
    fetch("store", str(source), folder)
    assert contents(folder) == {"store.jsonl": b"{}\n"}


@pytest.mark.parametrize("name", ["store.jsonl", "meta_store.jsonl"])
def test_a_file_with_another_checksum_than_its_checksum_file_is_refused(
    source: Path, folder: Path, name: str
) -> None:
    (source / "store.jsonl").write_bytes(b"{}\n")
    (source / "meta_store.jsonl").write_bytes(b"{}\n")
    (source / f"{name}.sha256").write_text(hashlib.sha256(BODY).hexdigest())
    message = error_of(str(source), folder)
    assert message == f"{source / name} does not have the checksum in {name}.sha256"


def test_a_damaged_gzip_of_a_folder_is_refused(source: Path, folder: Path) -> None:
    (source / "store.jsonl.gz").write_bytes(BODY[:-100])
    assert "store.jsonl.gz is a damaged gzip" in error_of(str(source), folder)
    assert leftovers(folder) == []


def test_a_folder_never_overwrites_other_content(source: Path, folder: Path) -> None:
    (source / "store.jsonl").write_bytes(b"new")
    folder.mkdir(parents=True)
    (folder / "store.jsonl").write_bytes(b"old")
    assert "exists with other content" in error_of(str(source), folder)
    assert contents(folder) == {"store.jsonl": b"old"}


def test_the_error_for_a_folder_without_the_files_lists_the_names(
    source: Path, folder: Path
) -> None:
    (source / "reviews.jsonl").write_bytes(b"{}\n")
    message = error_of(str(source), folder)
    assert f"{source}/store.jsonl.gz" in message
    assert f"{source}/store.train.csv" in message


def test_a_ready_split_of_a_folder_must_be_complete(source: Path, folder: Path) -> None:
    for part in ("train", "test"):
        (source / f"store.{part}.csv").write_text(part)
    assert f"{source}/store.valid.csv" in error_of(str(source), folder)
    (source / "store.valid.csv").write_text("valid")
    fetch("store", str(source), folder)
    assert contents(folder) == {f"store.{part}.csv": part.encode() for part in PARTS}


def test_the_error_for_an_unknown_source_lists_the_kinds(folder: Path) -> None:
    message = error_of("ftp://somewhere", folder)
    assert message.startswith("datasets.store: 'ftp://somewhere' is neither sample, amazon, ")


def test_the_sample_is_the_same_every_time(tmp_path: Path) -> None:
    first = fetch("sample", "sample", tmp_path / "store")
    assert [file.name for file in first] == ["sample.jsonl", "meta_sample.jsonl"]
    before = contents(tmp_path / "store")
    assert (
        fetch("sample", "sample", tmp_path / "store") == first
    )  # different bytes would be an error
    assert contents(tmp_path / "store") == before
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


KILLED = """
import os, signal, sys
from pathlib import Path
from llmsrec.sources import download

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def write_half(folder):
    (folder / "sample.jsonl").write_text("half of")
    die()

if sys.argv[1] == "sample":
    download.write_sample = write_half
os.replace = die
download.fetch("store", sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("kind", ["sample", "folder"])
def test_a_killed_copy_leaves_no_visible_file(source: Path, folder: Path, kind: str) -> None:
    (source / "store.jsonl").write_bytes(b"{}\n")
    argument = "sample" if kind == "sample" else str(source)
    process = subprocess.run([sys.executable, "-c", KILLED, argument, str(folder)])
    assert process.returncode == -signal.SIGKILL
    assert contents(folder) == {}
    fetch("store", argument, folder)
    names = {"sample": {"sample.jsonl", "meta_sample.jsonl"}, "folder": {"store.jsonl"}}
    assert contents(folder).keys() == names[kind]
    assert leftovers(folder) == []
