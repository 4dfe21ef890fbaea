"""Raw files of a dataset, from a folder, HTTPS, S3 or the sample store, into data/<dataset>/.

A file appears under its name only when its size and checksum are right; until then it is a hidden `.partial` that the
next run goes on with. What is there is never changed.
"""

import filecmp
import hashlib
import os
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from isal import igzip

from llmsrec.core.errors import SourceError
from llmsrec.core.files import sha256
from llmsrec.core.progress import Progress
from llmsrec.sources.remote import Found, Interrupted, Remote, S3Remote, open_remote
from llmsrec.sources.sample import generate

AMAZON = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
ATTEMPTS = 6
PAUSE = 0.5  # seconds before the second attempt, then doubled

T = TypeVar("T")


@dataclass(frozen=True)
class Names:
    """What the files of a dataset may be called: one review file, or a ready split of three, and metadata.

    The entries of a list are alternatives; the first that exists is taken."""

    single: list[str]
    ready: list[list[str]]
    metadata: list[str]

    @classmethod
    def of(cls, dataset: str) -> "Names":
        return cls(
            [f"{dataset}.{kind}" for kind in ("jsonl.gz", "jsonl", "csv.gz", "csv")],
            [
                [f"{dataset}.{part}.{kind}" for kind in ("csv.gz", "csv")]
                for part in ("train", "valid", "test")
            ],
            [f"meta_{dataset}.{kind}" for kind in ("jsonl.gz", "jsonl")],
        )

    def under(self, base: str) -> "Names":
        def full(names: list[str]) -> list[str]:
            return [f"{base}/{name}" for name in names]

        return Names(full(self.single), [full(names) for names in self.ready], full(self.metadata))


def fetch(dataset: str, source: str, folder: Path) -> list[Path]:
    """All raw files of a dataset under `folder`; those already there are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    if source == "sample":
        with tempfile.TemporaryDirectory() as aside:
            return [place(file, folder / file.name) for file in generate(Path(aside))]
    if Path(source).expanduser().is_dir():
        return _copy(Names.of(dataset).under(str(Path(source).expanduser())), folder)
    names = _addresses(dataset, source)
    with closing(open_remote([*names.single, *names.metadata][0])) as remote:
        return _download_all(remote, names, folder)


def upload(files: list[Path], address: str) -> list[str]:
    """Send files below an S3 address, each read back and compared."""
    base = address.rstrip("/")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    sent = []
    with closing(S3Remote()) as remote:
        for file in files:
            target = f"{base}/{file.name}"
            retry(lambda file=file, target=target: remote.upload(file, target), target)  # type: ignore[misc]
            sent.append(target)
    return sent


def place(file: Path, target: Path) -> Path:
    """Copy a whole file to a name that is free, or that has the same content already."""
    if target.exists():
        if not filecmp.cmp(file, target, shallow=False):
            raise _changed(target)
        print(f"kept {target}: unchanged", flush=True)
        return target
    partial = target.with_name(f".{target.name}.copy.partial")
    shutil.copyfile(file, partial)
    return _publish(partial, target)


def download(remote: Remote, found: Found, target: Path) -> Path:
    """Go on from what a former run left, verify, publish."""
    checksum = found.checksum or _published_checksum(remote, found.address)
    if target.exists():
        same = checksum is None or _digest(target, checksum[0]) == checksum[1]
        if not same or found.size not in (None, target.stat().st_size):
            raise _changed(target)
        print(f"kept {target}: unchanged", flush=True)
        return target
    return _publish(receive(remote, found, target, checksum), target)


def receive(remote: Remote, found: Found, target: Path, checksum: tuple[str, str] | None) -> Path:
    """The whole and verified file, still under a hidden name beside `target`."""
    version = hashlib.sha256(f"{found.tag} {found.size}".encode()).hexdigest()[:8]
    partial = target.with_name(f".{target.name}.{version}.partial")
    partial.touch()
    there = partial.stat().st_size
    progress = Progress(f"fetching {target.name}", found.size, "bytes", done=there)
    retry(lambda: _resume_download(remote, found, partial, progress), found.address)
    size = partial.stat().st_size
    if found.size is not None and size != found.size:
        partial.unlink()
        raise SourceError(
            f"{found.address}: {size} bytes came, {found.size} were announced: try again"
        )
    if checksum and _digest(partial, checksum[0]) != checksum[1]:
        partial.unlink()
        raise SourceError(
            f"{found.address}: the {checksum[0]} is not the stated one; the file was discarded"
        )
    return partial


def _choose(names: Names, find: Callable[[str], T | None]) -> list[T]:
    """The review file, or all three of a ready split, and the metadata where there is some."""

    def first(alternatives: list[str]) -> T | None:
        return next((found for name in alternatives if (found := find(name))), None)

    single = first(names.single)
    reviews = [single] if single else [first(some) for some in names.ready]
    chosen = [found for found in reviews if found]
    if not chosen or len(chosen) < len(reviews):
        looked = ", ".join([*names.single, *(name for some in names.ready for name in some)])
        raise SourceError(f"no complete set of review files found; looked for {looked}")
    metadata = first(names.metadata)
    if metadata is None:
        print(f"no metadata at {names.metadata[0]}: items will have placeholder titles", flush=True)
    return [*chosen, metadata] if metadata else chosen


def _copy(names: Names, folder: Path) -> list[Path]:
    files = _choose(names, lambda name: Path(name) if Path(name).is_file() else None)
    for file in files:
        beside = file.with_name(f"{file.name}.sha256")
        stated = _first_word(beside.read_text()) if beside.exists() else None
        if stated and stated != sha256(file):
            raise SourceError(f"{file} does not have the checksum stated in {beside.name}")
    return [place(file, folder / file.name) for file in files]


def _addresses(dataset: str, source: str) -> Names:
    metadata = [f"{AMAZON}/raw/meta_categories/meta_{dataset}.jsonl.gz"]
    if source == "amazon":
        return Names([f"{AMAZON}/raw/review_categories/{dataset}.jsonl.gz"], [], metadata)
    if source == "amazon-5core":
        return Names(
            [], Names.of(dataset).under(f"{AMAZON}/benchmark/5core/last_out").ready, metadata
        )
    if re.match(r"(https?|s3)://[^/]", source):
        return Names.of(dataset).under(source.rstrip("/"))
    raise SourceError(
        f"datasets.{dataset}: '{source}' is neither sample, amazon, amazon-5core, an existing folder, "
        "https://... nor s3://bucket/prefix"
    )


def _download_all(remote: Remote, names: Names, folder: Path) -> list[Path]:
    wanted = _choose(names, lambda address: retry(lambda: remote.find(address), address))
    return [download(remote, found, folder / found.address.rsplit("/", 1)[1]) for found in wanted]


def _resume_download(remote: Remote, found: Found, partial: Path, progress: Progress) -> None:
    start = partial.stat().st_size
    if found.size is not None and start >= found.size:
        return
    with partial.open("r+b") as file:
        file.seek(start)
        for chunk in remote.read(found, start):
            if not chunk:  # the server starts again from the first byte
                file.seek(0)
                file.truncate()
                progress.restart()
            file.write(chunk)
            progress.advance(len(chunk))
    if found.size is not None and partial.stat().st_size < found.size:
        raise Interrupted("the connection closed early")


def retry(attempt: Callable[[], T], address: str) -> T:
    """Try again what may pass, each time a little later."""
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except Interrupted as error:
            if number == ATTEMPTS - 1:
                raise SourceError(
                    f"{address}: gave up after {ATTEMPTS} attempts ({error})"
                ) from None
            time.sleep(PAUSE * 2**number)
    raise AssertionError("unreachable")


def _published_checksum(remote: Remote, address: str) -> tuple[str, str] | None:
    text = retry(lambda: remote.text(f"{address}.sha256"), address)
    stated = _first_word(text or "")
    return ("sha256", stated) if stated else None


def _first_word(text: str) -> str | None:
    """The digest in what sha256sum writes: `digest  name`."""
    return next(iter(text.lower().split()), None)


def _publish(partial: Path, target: Path) -> Path:
    """A gzip is read to its end first: its own checksum finds what a missing one would not."""
    if target.suffix == ".gz":
        try:
            with igzip.open(partial, "rb") as stream:
                while stream.read(1 << 22):
                    pass
        except (EOFError, OSError, zlib.error) as error:
            partial.unlink()
            raise SourceError(
                f"{target.name} is a damaged gzip ({error}); it was discarded"
            ) from None
    os.replace(partial, target)
    print(f"added {target} ({target.stat().st_size:,} bytes)", flush=True)
    return target


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _changed(target: Path) -> SourceError:
    return SourceError(
        f"{target} exists with other content, and raw files are never changed: add the new file beside it "
        "under another name"
    )
