"""Raw files arrive whole and verified or not at all, from folders, real HTTP and S3 servers, and the sample store."""

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
from llmsrec.sources import download
from llmsrec.sources.download import fetch, upload
from llmsrec.sources.remote import S3Remote

MIB = 1 << 20
TRIPLE = ("train", "valid", "test")


def packed(seed: int, size: int = 3_000_000) -> bytes:
    """A gzip that takes about `size` bytes."""
    return gzip.compress(random.Random(seed).randbytes(size), compresslevel=1, mtime=0)


BODY, OTHER = packed(1), packed(2)
SMALL = packed(3, 1_000)


@dataclass
class Site:
    """A server of files: what it holds, how it misbehaves, what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    address: str = ""
    ranges: bool = True
    tags: bool = True
    sizes: bool = True  # HEAD tells them
    packs: bool = False  # texts are sent gzipped to those who take it
    announced: dict[str, int] = field(default_factory=dict)  # HEAD lies
    statuses: list[int] = field(default_factory=list)  # of the next answers
    drops: list[int] = field(default_factory=list)  # bytes after which the next long answers end
    at_drop: Callable[[], object] = lambda: None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def reads(self, path: str) -> list[str | None]:
        """The ranges asked of a file, in order."""
        return [span for method, name, span in self.asked if (method, name) == ("GET", path)]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        site: Site = self.server.site
        site.asked.append((self.command, self.path, self.headers["range"]))
        if site.statuses:
            return self.reply(site.statuses.pop(0), b"")
        if self.path not in site.files:
            return self.reply(404, b"<html>not here</html>")
        content = site.files[self.path]
        headers = {}
        if site.packs and "gzip" in self.headers.get("accept-encoding", ""):
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
        """A client that was killed leaves a broken pipe."""


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
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0001)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store"


def contents(folder: Path) -> dict[str, bytes]:
    """The files that are there, partial ones apart."""
    if not folder.is_dir():
        return {}
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name[0] != "."}


def leftovers(folder: Path) -> list[str]:
    return [file.name for file in folder.parent.rglob(".*")]


def refused(source: str, folder: Path) -> str:
    """The one clear line; nothing is under a final name that was not there before."""
    before = contents(folder)
    with pytest.raises(SourceError) as caught:
        fetch("store", source, folder)
    assert contents(folder) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- HTTP ---


def test_reviews_and_metadata_are_fetched_as_they_are(site: Site, folder: Path) -> None:
    site.files = {"/a/store.jsonl.gz": BODY, "/a/meta_store.jsonl.gz": SMALL}
    found = fetch("store", f"{site.address}/a/", folder)
    assert found == [folder / "store.jsonl.gz", folder / "meta_store.jsonl.gz"]
    assert contents(folder) == {"store.jsonl.gz": BODY, "meta_store.jsonl.gz": SMALL}
    assert leftovers(folder) == []


def test_a_dropped_connection_goes_on_from_where_it_was(site: Site, folder: Path) -> None:
    site.files = {"/store.jsonl.gz": BODY}
    site.drops = [1_500_000, 1_200_000]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    # what had come is kept in whole chunks of a MiB
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={MIB}-", f"bytes={2 * MIB}-"]


def test_a_server_without_ranges_starts_over(site: Site, folder: Path) -> None:
    site.files, site.ranges, site.drops = {"/store.jsonl.gz": BODY}, False, [1_500_000]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={MIB}-"]


@pytest.mark.parametrize("tags", [True, False])
def test_a_file_that_changes_under_way_is_not_mixed_with_the_old_one(
    site: Site, folder: Path, tags: bool
) -> None:
    site.files, site.tags, site.drops = {"/store.jsonl": bytes(3 * MIB)}, tags, [2 * MIB]
    changed = b"x" * (3 * MIB)
    site.at_drop = lambda: site.files.update({"/store.jsonl": changed})
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl": changed}


def test_nothing_of_a_longer_file_is_left_behind_a_shorter_one(site: Site, folder: Path) -> None:
    site.files, site.sizes, site.drops = {"/store.jsonl": bytes(3 * MIB)}, False, [2 * MIB]
    site.at_drop = lambda: site.files.update({"/store.jsonl": b"short\n"})
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl": b"short\n"}


def test_a_file_that_changed_between_two_runs_is_not_mixed_with_the_old_one(
    site: Site, folder: Path
) -> None:
    site.files = {"/store.jsonl": bytes(3 * MIB)}
    site.drops = [2 * MIB]
    site.at_drop = lambda: site.statuses.extend([503] * download.ATTEMPTS)
    assert "gave up" in refused(site.address, folder)
    changed = b"x" * (3 * MIB)
    site.files = {"/store.jsonl": changed}
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl": changed}


def test_the_next_run_goes_on_where_one_gave_up(site: Site, folder: Path) -> None:
    site.files, site.drops = {"/store.jsonl.gz": BODY}, [2 * MIB]
    site.at_drop = lambda: site.statuses.extend([503] * download.ATTEMPTS)
    refused(site.address, folder)
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz")[-1] == f"bytes={2 * MIB}-"
    assert leftovers(folder) == []


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_may_pass_is_tried_again(site: Site, folder: Path, status: int) -> None:
    site.files, site.statuses = {"/store.jsonl.gz": SMALL}, [status, status]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": SMALL}


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_that_stays_broken_is_given_up(site: Site, folder: Path, status: int) -> None:
    site.files, site.statuses = {"/store.jsonl.gz": SMALL}, [status] * 100
    assert refused(site.address, folder) == (
        f"{site.address}/store.jsonl.gz: gave up after 6 attempts (the server answered {status})"
    )
    assert len(site.asked) == download.ATTEMPTS


def test_a_refusal_that_will_not_pass_is_told_at_once(site: Site, folder: Path) -> None:
    site.files, site.statuses = {"/store.jsonl.gz": SMALL}, [401]
    assert refused(site.address, folder).endswith("/store.jsonl.gz: the server answered 401")


def test_a_server_that_is_not_there_is_given_up(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    said = refused(address, folder)
    assert said.startswith(f"{address}/store.jsonl.gz: gave up after 6 attempts (ConnectError")


def test_files_that_are_not_there_are_told_by_all_the_names_looked_for(
    site: Site, folder: Path
) -> None:
    said = refused(f"{site.address}/here", folder)
    for name in ("store.jsonl.gz", "store.jsonl", "store.csv.gz", "store.csv", "store.train.csv"):
        assert f"{site.address}/here/{name}" in said


def test_metadata_may_be_missing(
    site: Site, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.files = {"/store.jsonl": b"{}\n"}
    assert fetch("store", site.address, folder) == [folder / "store.jsonl"]
    assert "items will have placeholder titles" in capsys.readouterr().out


def test_more_bytes_than_announced_are_refused(site: Site, folder: Path) -> None:
    site.files = {"/store.jsonl": b"x" * 1000}
    site.announced = {"/store.jsonl": 900}
    assert "1000 bytes came, 900 were announced" in refused(site.address, folder)
    assert leftovers(folder) == []


def test_fewer_bytes_than_announced_are_refused(site: Site, folder: Path) -> None:
    site.files = {"/store.jsonl": b"x" * 1000}
    site.announced = {"/store.jsonl": 1100}
    assert "gave up after 6 attempts (the connection closed early)" in refused(site.address, folder)


def test_a_file_of_unknown_size_is_fetched_and_gone_on_with(site: Site, folder: Path) -> None:
    site.files, site.sizes, site.drops = {"/store.jsonl.gz": BODY}, False, [2 * MIB]
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={2 * MIB}-"]


def test_a_file_of_unknown_size_that_had_come_whole_is_not_fetched_again(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    site.files, site.sizes = {"/store.jsonl.gz": BODY}, False
    publish = download._publish
    monkeypatch.setattr(download, "_publish", stopped)  # just before the name is given
    with pytest.raises(KeyboardInterrupt):
        fetch("store", site.address, folder)
    monkeypatch.setattr(download, "_publish", publish)
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={len(BODY)}-"]


def test_a_server_that_packs_texts_on_the_way_gives_them_as_they_are(
    site: Site, folder: Path
) -> None:
    text = b"user_id,parent_asin,timestamp\n" + b"u,i,1\n" * 10_000
    site.files, site.packs = {"/store.csv": text}, True
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.csv": text}


@pytest.mark.parametrize("spelling", ["{}", "{}  store.jsonl.gz\n", "{:upper} *store.jsonl.gz\n"])
def test_a_stated_checksum_that_fits_is_accepted(site: Site, folder: Path, spelling: str) -> None:
    digest = hashlib.sha256(BODY).hexdigest()
    stated = spelling.replace("{:upper}", digest.upper()).replace("{}", digest)
    site.files = {"/store.jsonl.gz": BODY, "/store.jsonl.gz.sha256": stated.encode()}
    fetch("store", site.address, folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}


def test_a_stated_checksum_that_does_not_fit_refuses_the_file(site: Site, folder: Path) -> None:
    stated = hashlib.sha256(OTHER).hexdigest().encode()
    site.files = {"/store.jsonl.gz": BODY, "/store.jsonl.gz.sha256": stated}
    said = refused(site.address, folder)
    assert said == (
        f"{site.address}/store.jsonl.gz: the sha256 is not the stated one; the file was discarded"
    )
    assert leftovers(folder) == []


@pytest.mark.parametrize(
    "damaged",
    [
        BODY[:-1000],
        BODY[: len(BODY) // 2],
        BODY[:1_000_000] + bytes([BODY[1_000_000] ^ 1]) + BODY[1_000_001:],
        b"<html>not here</html>",
    ],
    ids=["end missing", "half missing", "one bit", "another thing"],
)
def test_a_damaged_gzip_is_refused(site: Site, folder: Path, damaged: bytes) -> None:
    site.files = {"/store.jsonl.gz": damaged}
    assert refused(site.address, folder).startswith("store.jsonl.gz is a damaged gzip (")
    assert leftovers(folder) == []


def test_a_file_that_is_there_already_is_kept_and_not_fetched(
    site: Site, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = hashlib.sha256(BODY).hexdigest().encode()
    site.files = {"/store.jsonl.gz": BODY, "/store.jsonl.gz.sha256": stated}
    fetch("store", site.address, folder)
    written = (folder / "store.jsonl.gz").stat()
    assert fetch("store", site.address, folder) == [folder / "store.jsonl.gz"]
    assert f"kept {folder / 'store.jsonl.gz'}: unchanged" in capsys.readouterr().out
    assert (folder / "store.jsonl.gz").stat().st_mtime_ns == written.st_mtime_ns
    assert site.reads("/store.jsonl.gz") == [None]


@pytest.mark.parametrize("stated", [True, False])
def test_a_file_with_other_content_is_never_overwritten(
    site: Site, folder: Path, stated: bool
) -> None:
    folder.mkdir(parents=True)
    (folder / "store.jsonl.gz").write_bytes(SMALL)
    site.files = {"/store.jsonl.gz": BODY}
    if stated:
        site.files["/store.jsonl.gz.sha256"] = hashlib.sha256(BODY).hexdigest().encode()
    assert "exists with other content" in refused(site.address, folder)
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
def test_a_ready_split_comes_as_its_three_files(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(download, "AMAZON", site.address)
    parts = {
        f"store.{part}.{kind}": packed(10 + number, 2_000) for number, part in enumerate(TRIPLE)
    }
    site.files = {f"/benchmark/5core/last_out/{name}": body for name, body in parts.items()}
    site.files["/raw/meta_categories/meta_store.jsonl.gz"] = SMALL
    found = fetch("store", "amazon-5core", folder)
    assert [file.name for file in found] == [*parts, "meta_store.jsonl.gz"]
    assert contents(folder) == {**parts, "meta_store.jsonl.gz": SMALL}


def test_a_ready_split_may_lie_at_any_address(site: Site, folder: Path) -> None:
    parts = {f"store.{part}.csv": part.encode() for part in TRIPLE}
    site.files = {f"/{name}": body for name, body in parts.items()}
    fetch("store", site.address, folder)
    assert contents(folder) == parts


def test_a_ready_split_with_a_part_missing_is_refused_before_any_is_fetched(
    site: Site, folder: Path
) -> None:
    site.files = {"/store.train.csv": b"x", "/store.test.csv": b"x"}
    assert f"{site.address}/store.valid.csv" in refused(site.address, folder)


def test_a_download_that_is_killed_ends_in_the_same_bytes_when_run_again(
    site: Site, folder: Path, tmp_path: Path
) -> None:
    site.files, site.drops = {"/store.jsonl.gz": BODY}, [2_500_000]
    over = threading.Event()
    site.at_drop = lambda: over.wait(60)
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
    over.set()
    assert contents(folder) == {}
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert site.reads("/store.jsonl.gz") == [None, f"bytes={2 * MIB}-"]
    assert leftovers(folder) == []


# --- S3 ---


def put(s3: Any, **named: Any) -> None:
    s3.put_object(Bucket="bucket", **named)


def put_in_two_parts(s3: Any, key: str, body: bytes) -> None:
    """As large files come to S3: their ETag is no md5 of the whole."""
    target = {"Bucket": "bucket", "Key": key}
    number = s3.create_multipart_upload(**target)["UploadId"]
    parts = []
    for part, piece in enumerate((body[: 5 * MIB], body[5 * MIB :]), start=1):
        sent = s3.upload_part(**target, UploadId=number, PartNumber=part, Body=piece)
        parts.append({"PartNumber": part, "ETag": sent["ETag"]})
    s3.complete_multipart_upload(**target, UploadId=number, MultipartUpload={"Parts": parts})


@contextmanager
def relay(
    endpoint: tuple[str, int], cut: int, at_cut: Callable[[], object] = lambda: None
) -> Iterator[tuple[str, list[str]]]:
    """Passes bytes to the endpoint and back; ends the first connection that has brought `cut` of them.

    Gives its address and the list of ranges that were asked for."""
    asked: list[str] = []
    cuts = [cut]

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(endpoint) as onward:
                sender = threading.Thread(target=self.send, args=(onward,))
                sender.start()
                brought = 0
                while data := onward.recv(1 << 16):
                    brought += len(data)
                    self.request.sendall(data)
                    if cuts and brought > cuts[0]:
                        cuts.clear()
                        at_cut()
                        break
                for end in (self.request, onward):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                sender.join()

        def send(self, onward: socket.socket) -> None:
            with suppress(OSError):
                while data := self.request.recv(1 << 16):
                    asked.extend(re.findall(r"(?i)\brange: (bytes=\S+)", data.decode("latin-1")))
                    onward.sendall(data)
                onward.shutdown(socket.SHUT_RDWR)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield "http://{}:{}".format(*server.server_address), asked
        finally:
            server.shutdown()
            thread.join()


def test_files_of_a_bucket_are_fetched_as_they_are(s3: Any, folder: Path) -> None:
    put(s3, Key="raw/store.jsonl.gz", Body=BODY)
    put(s3, Key="raw/meta_store.jsonl.gz", Body=SMALL)
    found = fetch("store", "s3://bucket/raw/", folder)
    assert found == [folder / "store.jsonl.gz", folder / "meta_store.jsonl.gz"]
    assert contents(folder) == {"store.jsonl.gz": BODY, "meta_store.jsonl.gz": SMALL}
    assert leftovers(folder) == []
    assert fetch("store", "s3://bucket/raw", folder) == found


def test_a_dropped_transfer_from_s3_goes_on_from_where_it_was(
    s3: Any, endpoint: tuple[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, Key="raw/store.jsonl.gz", Body=BODY)
    with relay(endpoint, cut=1_500_000) as (address, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fetch("store", "s3://bucket/raw", folder)
    assert contents(folder) == {"store.jsonl.gz": BODY}
    assert asked[0] == "bytes=0-"
    (went_on,) = asked[1:]
    assert MIB <= int(went_on.removeprefix("bytes=").removesuffix("-")) < 1_600_000


def test_an_object_that_changes_under_way_is_not_mixed_with_the_old_one(
    s3: Any, endpoint: tuple[str, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(s3, Key="raw/store.jsonl", Body=bytes(3 * MIB))
    changed = b"x" * (3 * MIB)

    def change() -> None:
        put(s3, Key="raw/store.jsonl", Body=changed)

    with relay(endpoint, cut=1_500_000, at_cut=change) as (address, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        assert "PreconditionFailed" in refused("s3://bucket/raw", folder)
        fetch("store", "s3://bucket/raw", folder)
    assert contents(folder) == {"store.jsonl": changed}


def test_an_object_with_another_checksum_than_it_states_is_refused(s3: Any, folder: Path) -> None:
    wrong = base64.b64encode(hashlib.sha256(OTHER).digest()).decode()
    put(s3, Key="raw/store.jsonl.gz", Body=BODY, ChecksumAlgorithm="SHA256", ChecksumSHA256=wrong)
    assert "the sha256 is not the stated one" in refused("s3://bucket/raw", folder)
    assert leftovers(folder) == []


@pytest.mark.parametrize("right", [True, False])
def test_an_object_sent_in_parts_is_checked_by_the_file_beside_it(
    s3: Any, folder: Path, right: bool
) -> None:
    large = random.Random(4).randbytes(6 * MIB)
    put_in_two_parts(s3, "raw/store.jsonl", large)
    stated = hashlib.sha256(large if right else BODY).hexdigest()
    put(s3, Key="raw/store.jsonl.sha256", Body=f"{stated}  store.jsonl\n".encode())
    if right:
        fetch("store", "s3://bucket/raw", folder)
        assert contents(folder) == {"store.jsonl": large}
    else:
        assert "the sha256 is not the stated one" in refused("s3://bucket/raw", folder)


def test_an_object_with_other_content_never_overwrites(s3: Any, folder: Path) -> None:
    put(s3, Key="raw/store.jsonl", Body=b"new")
    folder.mkdir(parents=True)
    (folder / "store.jsonl").write_bytes(b"old")
    assert "exists with other content" in refused("s3://bucket/raw", folder)
    assert contents(folder) == {"store.jsonl": b"old"}


@pytest.mark.parametrize("bucket", ["bucket", "nobodys"])
def test_objects_that_are_not_there_are_told_by_the_names_looked_for(
    s3: Any, folder: Path, bucket: str
) -> None:
    said = refused(f"s3://{bucket}/here", folder)
    assert said.startswith("no complete set of review files found; looked for ")
    assert f" s3://{bucket}/here/store.jsonl.gz, " in said


def test_without_credentials_the_message_says_what_to_set(
    s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    said = refused("s3://bucket/raw", folder)
    assert said.startswith("s3://bucket/raw/store.jsonl.gz: no AWS credentials; set AWS_ACCESS_KEY")


def test_a_profile_that_does_not_exist_is_named(
    s3: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "nobody" in refused("s3://bucket/raw", folder)


@pytest.mark.parametrize("address", ["s3://", "s3:///store"])
def test_an_address_without_a_bucket_is_refused(s3: Any, folder: Path, address: str) -> None:
    assert refused(address, folder).endswith("nor s3://bucket/prefix")


def test_uploads_can_be_read_back_with_their_checksum(s3: Any, tmp_path: Path) -> None:
    files = [tmp_path / "items.parquet", tmp_path / "manifest.json"]
    for file, body in zip(files, (BODY, b"{}"), strict=True):
        file.write_bytes(body)
    sent = upload(files, "s3://bucket/vectors/")
    assert sent == ["s3://bucket/vectors/items.parquet", "s3://bucket/vectors/manifest.json"]
    for key, body in (("vectors/items.parquet", BODY), ("vectors/manifest.json", b"{}")):
        found = s3.get_object(Bucket="bucket", Key=key, ChecksumMode="ENABLED")
        assert found["Body"].read() == body
        assert base64.b64decode(found["ChecksumSHA256"]) == hashlib.sha256(body).digest()


def test_an_upload_that_did_not_arrive_whole_is_an_error(
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
    with pytest.raises(SourceError, match=r"s3://bucket/x does not hold what was sent .*: upload"):
        upload([tmp_path / "x"], "s3://bucket")


# --- folders and the sample store ---


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A local folder that serves as a source."""
    path = tmp_path / "shelf"
    path.mkdir()
    return path


def test_files_of_a_folder_are_copied(shelf: Path, folder: Path) -> None:
    (shelf / "store.jsonl.gz").write_bytes(BODY)
    (shelf / "meta_store.jsonl").write_bytes(b"{}\n")
    (shelf / "another.jsonl").write_bytes(b"{}\n")
    found = fetch("store", str(shelf), folder)
    assert found == [folder / "store.jsonl.gz", folder / "meta_store.jsonl"]
    assert contents(folder) == {"store.jsonl.gz": BODY, "meta_store.jsonl": b"{}\n"}
    assert (shelf / "store.jsonl.gz").read_bytes() == BODY
    assert fetch("store", str(shelf), folder) == found
    assert leftovers(folder) == []


@pytest.mark.parametrize("stated", ["{}", "{:upper}  store.jsonl\n", " \n"])
def test_a_checksum_beside_a_file_is_respected(shelf: Path, folder: Path, stated: str) -> None:
    (shelf / "store.jsonl").write_bytes(b"{}\n")
    digest = hashlib.sha256(b"{}\n").hexdigest()
    beside = stated.replace("{:upper}", digest.upper()).replace("{}", digest)
    (shelf / "store.jsonl.sha256").write_text(beside)
    fetch("store", str(shelf), folder)
    assert contents(folder) == {"store.jsonl": b"{}\n"}


@pytest.mark.parametrize("name", ["store.jsonl", "meta_store.jsonl"])
def test_a_checksum_beside_a_file_that_does_not_fit_refuses_it(
    shelf: Path, folder: Path, name: str
) -> None:
    (shelf / "store.jsonl").write_bytes(b"{}\n")
    (shelf / "meta_store.jsonl").write_bytes(b"{}\n")
    (shelf / f"{name}.sha256").write_text(hashlib.sha256(BODY).hexdigest())
    said = refused(str(shelf), folder)
    assert said == f"{shelf / name} does not have the checksum stated in {name}.sha256"


def test_a_damaged_gzip_of_a_folder_is_refused(shelf: Path, folder: Path) -> None:
    (shelf / "store.jsonl.gz").write_bytes(BODY[:-100])
    assert "store.jsonl.gz is a damaged gzip" in refused(str(shelf), folder)
    assert leftovers(folder) == []


def test_a_folder_never_overwrites_other_content(shelf: Path, folder: Path) -> None:
    (shelf / "store.jsonl").write_bytes(b"new")
    folder.mkdir(parents=True)
    (folder / "store.jsonl").write_bytes(b"old")
    assert "exists with other content" in refused(str(shelf), folder)
    assert contents(folder) == {"store.jsonl": b"old"}


def test_a_folder_without_the_files_is_told_their_names(shelf: Path, folder: Path) -> None:
    (shelf / "reviews.jsonl").write_bytes(b"{}\n")
    said = refused(str(shelf), folder)
    assert f"{shelf}/store.jsonl.gz" in said
    assert f"{shelf}/store.train.csv" in said


def test_a_ready_split_of_a_folder_must_be_whole(shelf: Path, folder: Path) -> None:
    for part in ("train", "test"):
        (shelf / f"store.{part}.csv").write_text(part)
    assert f"{shelf}/store.valid.csv" in refused(str(shelf), folder)
    (shelf / "store.valid.csv").write_text("valid")
    fetch("store", str(shelf), folder)
    assert contents(folder) == {f"store.{part}.csv": part.encode() for part in TRIPLE}


def test_a_source_of_no_known_kind_is_told_the_kinds(folder: Path) -> None:
    said = refused("ftp://somewhere", folder)
    assert said.startswith("datasets.store: 'ftp://somewhere' is neither sample, amazon, ")


def test_the_sample_store_is_the_same_every_time(tmp_path: Path) -> None:
    first = fetch("sample", "sample", tmp_path / "store")
    assert [file.name for file in first] == ["sample.jsonl", "meta_sample.jsonl"]
    before = contents(tmp_path / "store")
    assert fetch("sample", "sample", tmp_path / "store") == first  # other bytes would be refused
    assert contents(tmp_path / "store") == before
    assert [file.name for file in tmp_path.iterdir()] == ["store"]


KILLED = """
import os, signal, sys
from pathlib import Path
from llmsrec.data import sources

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def half(folder):
    (folder / "sample.jsonl").write_text("half of")
    die()

if sys.argv[1] == "sample":
    download.generate = half
os.replace = die
download.fetch("store", sys.argv[1], Path(sys.argv[2]))
"""


@pytest.mark.parametrize("kind", ["sample", "folder"])
def test_a_copy_that_is_killed_leaves_nothing_to_see(shelf: Path, folder: Path, kind: str) -> None:
    (shelf / "store.jsonl").write_bytes(b"{}\n")
    source = "sample" if kind == "sample" else str(shelf)
    run = subprocess.run([sys.executable, "-c", KILLED, source, str(folder)])
    assert run.returncode == -signal.SIGKILL
    assert contents(folder) == {}
    fetch("store", source, folder)
    names = {"sample": {"sample.jsonl", "meta_sample.jsonl"}, "folder": {"store.jsonl"}}
    assert contents(folder).keys() == names[kind]
    assert leftovers(folder) == []
