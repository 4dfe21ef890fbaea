"""Raw files of a dataset, from a folder, HTTPS, S3 or the built-in sample, into data/<dataset>/.

A file gets its final name only after its size and checksum are verified; until then it is a hidden `.partial` file that
the next run resumes. Existing files are never changed.
"""

import filecmp
import hashlib
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from isal import igzip

from llmsrec.core.errors import SourceError
from llmsrec.core.files import hash_file, sha256
from llmsrec.core.progress import Progress
from llmsrec.sources.remote import HttpRemote, Remote, RemoteFile, TransientError, retry
from llmsrec.sources.s3 import S3Remote
from llmsrec.sources.sample import write_sample

AMAZON = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"

T = TypeVar("T")


@dataclass(frozen=True)
class RawFileNames:
    """Possible names of a dataset's files: one review file or a ready split of three, and metadata.

    The names of a list are alternatives; the first that exists is used."""

    reviews: list[str]
    ready_split: list[list[str]]
    metadata: list[str]

    @classmethod
    def below(cls, base: str, dataset: str) -> "RawFileNames":
        """The names of `dataset` below a folder or address."""
        suffixes = [f"{kind}{gz}" for kind in ("jsonl", "csv", "json", "tsv") for gz in (".gz", "")]
        return cls(
            [f"{base}/{dataset}.{suffix}" for suffix in suffixes],
            [
                [f"{base}/{dataset}.{part}.{suffix}" for suffix in ("csv.gz", "csv")]
                for part in ("train", "valid", "test")
            ],
            [f"{base}/meta_{dataset}.{suffix}" for suffix in suffixes],
        )


def fetch(dataset: str, source: str, folder: Path) -> list[Path]:
    """Bring all raw files of a dataset into `folder`; returns their paths.

    `source` is sample, amazon, amazon-5core, a folder, an https:// or an s3:// address. Files that exist already with
    the same content are left as they are; SourceError if a file is missing, damaged or differs from an existing one."""
    folder.mkdir(parents=True, exist_ok=True)
    if source == "sample":
        with tempfile.TemporaryDirectory() as generated:
            files = write_sample(Path(generated))
            return [copy_raw_file(file, folder / file.name) for file in files]
    if Path(source).expanduser().is_dir():
        base = Path(source).expanduser()
        return _copy_from_folder(base, RawFileNames.below(str(base), dataset), folder)
    names = _remote_names(dataset, source)
    with closing(S3Remote() if source.startswith("s3://") else HttpRemote()) as remote:
        remote_files = _select(names, lambda address: retry(lambda: remote.find(address), address))
        return [download(remote, file, folder / Path(file.address).name) for file in remote_files]


def copy_raw_file(file: Path, target: Path) -> Path:
    """Copy a file to `target`; SourceError if `target` exists with other content."""
    if target.exists():
        return _keep_existing(target, filecmp.cmp(file, target, shallow=False))
    partial = target.with_name(f".{target.name}.copy.partial")
    shutil.copyfile(file, partial)
    return _publish(partial, target)


def download(remote: Remote, file: RemoteFile, target: Path) -> Path:
    """Download a file to `target`, or resume its download; SourceError if `target` exists with other content."""
    checksum = file.checksum or _published_checksum(remote, file.address)
    if target.exists():
        same_size = file.size in (None, target.stat().st_size)
        same = checksum is None or hash_file(target, checksum[0]) == checksum[1]
        return _keep_existing(target, same_size and same)
    return _publish(download_verified(remote, file, target, checksum), target)


def download_verified(
    remote: Remote, file: RemoteFile, target: Path, checksum: tuple[str, str] | None
) -> Path:
    """Download a file to a hidden `.partial` file beside `target`; returns its path once size and checksum match."""
    version = hashlib.sha256(f"{file.tag} {file.size}".encode()).hexdigest()[:8]
    partial = target.with_name(f".{target.name}.{version}.partial")
    partial.touch()
    resumed = partial.stat().st_size
    progress = Progress(f"fetching {target.name}", file.size, "bytes", initial=resumed)
    retry(lambda: _resume_download(remote, file, partial, progress), file.address)
    size = partial.stat().st_size
    if file.size is not None and size != file.size:
        partial.unlink()
        raise SourceError(
            f"{file.address}: {size} bytes were received, {file.size} were announced: try again"
        )
    if checksum and hash_file(partial, checksum[0]) != checksum[1]:
        partial.unlink()
        raise SourceError(
            f"{file.address}: the {checksum[0]} differs from the published one; the file was discarded"
        )
    return partial


def _resume_download(remote: Remote, file: RemoteFile, partial: Path, progress: Progress) -> None:
    start = partial.stat().st_size
    if file.size is not None and start >= file.size:
        return
    with partial.open("r+b") as output:
        output.seek(start)
        for chunk in remote.read(file, start):
            if not chunk:  # the server starts again from the first byte
                output.seek(0)
                output.truncate()
                progress.restart()
            output.write(chunk)
            progress.advance(len(chunk))
    if file.size is not None and partial.stat().st_size < file.size:
        raise TransientError("the connection closed early")


def _select(names: RawFileNames, find: Callable[[str], T | None]) -> list[T]:
    """The review file or all three of a ready split, then the metadata if there is some."""

    def first(alternatives: list[str]) -> T | None:
        return next((file for name in alternatives if (file := find(name))), None)

    single = first(names.reviews)
    reviews = [single] if single else [first(alternatives) for alternatives in names.ready_split]
    files = [file for file in reviews if file]
    if not files or len(files) < len(reviews):
        tried = ", ".join([*names.reviews, *(name for part in names.ready_split for name in part)])
        raise SourceError(f"no complete set of review files found; looked for {tried}")
    metadata = first(names.metadata)
    if metadata is None:
        print(f"no metadata at {names.metadata[0]}: items will have placeholder titles", flush=True)
    return [*files, metadata] if metadata else files


def _copy_from_folder(source: Path, names: RawFileNames, folder: Path) -> list[Path]:
    """Capital and small letters of a name count as the same."""
    present = {file.name.lower(): file for file in sorted(source.iterdir()) if file.is_file()}
    try:
        files = _select(names, lambda name: present.get(Path(name).name.lower()))
    except SourceError as error:
        held = [file.name for file in present.values()][:20]
        raise SourceError(f"{error}; {source} holds {held}") from None
    for file in files:
        published = file.with_name(f"{file.name}.sha256")
        expected = _first_word(published.read_text()) if published.exists() else None
        if expected and expected != sha256(file):
            raise SourceError(f"{file} does not have the checksum in {published.name}")
    return [copy_raw_file(file, folder / file.name) for file in files]


def _remote_names(dataset: str, source: str) -> RawFileNames:
    metadata = [f"{AMAZON}/raw/meta_categories/meta_{dataset}.jsonl.gz"]
    if source == "amazon":
        return RawFileNames([f"{AMAZON}/raw/review_categories/{dataset}.jsonl.gz"], [], metadata)
    if source == "amazon-5core":
        names = RawFileNames.below(f"{AMAZON}/benchmark/5core/last_out", dataset)
        return RawFileNames([], names.ready_split, metadata)
    if re.match(r"(https?|s3)://[^/]", source):
        return RawFileNames.below(source.rstrip("/"), dataset)
    raise SourceError(
        f"datasets.{dataset}: '{source}' is neither sample, amazon, amazon-5core, an existing folder, "
        "https://... nor s3://bucket/prefix"
    )


def _published_checksum(remote: Remote, address: str) -> tuple[str, str] | None:
    text = retry(lambda: remote.read_text(f"{address}.sha256"), address)
    digest = _first_word(text or "")
    return ("sha256", digest) if digest else None


def _first_word(text: str) -> str | None:
    """The digest in the output of sha256sum, `digest  name`."""
    return next(iter(text.lower().split()), None)


def _keep_existing(target: Path, same: bool) -> Path:
    if not same:
        raise SourceError(
            f"{target} exists with other content, and raw files are never changed: add the new file beside it "
            "under another name"
        )
    print(f"kept {target}: unchanged", flush=True)
    return target


def _publish(partial: Path, target: Path) -> Path:
    """Rename a partial file to its final name; a gzip is read to its end first, which verifies its own checksum."""
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
