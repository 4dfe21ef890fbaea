"""Import new files of a dataset: check each file of the inbox and copy it to data/<dataset>/ under its content hash.

`import_files` and `archive_imported` are two steps, so that a file leaves the inbox only after DVC tracks its copy.
Both steps look at the files on disk first: after a kill at any point, running both again gives the same files.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmsrec.arrivals.inbox import DONE, REJECTED, Inbox, InboxFile
from llmsrec.core.errors import DataError
from llmsrec.core.files import exclusive_lock, fsync_path, sha256
from llmsrec.parsing.ingest import InteractionsConfig
from llmsrec.parsing.raw_files import FORMATS, SUFFIX, is_metadata, is_ready_split, parse_file
from llmsrec.parsing.rejects import LineCounts
from llmsrec.parsing.reviews import DateRange


@dataclass(frozen=True)
class ImportResult:
    """What happened to a file: `target` is its name in data/<dataset>/, None if it was rejected or still changes."""

    file: InboxFile
    status: Literal["accepted", "known", "rejected", "waiting"]
    digest: str
    target: str | None = None
    lines: int = 0
    rejects: int = 0
    reason: str | None = None


def import_files(
    inbox: Inbox, files: list[InboxFile], raw: Path, config: InteractionsConfig
) -> list[ImportResult]:
    """Copy each valid file to `raw` and move the others to `rejected/`; existing files in `raw` never change."""
    raw.mkdir(parents=True, exist_ok=True)
    staging = raw.with_name(f".{raw.name}.arrivals.partial")  # hidden from DVC, on the same disk
    with exclusive_lock(raw):
        shutil.rmtree(staging, ignore_errors=True)  # from a run that was killed
        staging.mkdir()
        results = [_import_file(inbox, file, raw, staging, config) for file in files]
        shutil.rmtree(staging)
    return results


def archive_imported(inbox: Inbox, results: list[ImportResult], raw: Path) -> None:
    """Move each file whose copy exists in `raw` from the inbox to `done/`."""
    for result in results:
        if result.target is not None and (raw / result.target).exists():
            inbox.move_to(result.file, result.digest, DONE)


def _import_file(
    inbox: Inbox, file: InboxFile, raw: Path, staging: Path, config: InteractionsConfig
) -> ImportResult:
    copy = staging / file.name
    if not inbox.fetch(file, copy):
        return ImportResult(file, "waiting", "", reason="it changed while it was read")
    digest = sha256(copy)
    try:
        lines, rejects = _check_file(copy, raw, config)
    except DataError as error:
        reason = f"{error}\n".replace(str(copy), file.name)
        inbox.move_to(file, digest, REJECTED, reason)
        return ImportResult(file, "rejected", digest, reason=reason.strip())
    duplicate = _find_duplicate(copy, digest, raw)
    if duplicate is not None:
        return ImportResult(file, "known", digest, duplicate.name, lines, rejects)
    target = raw / _raw_file_name(file.name, raw.name, digest)
    fsync_path(copy)
    os.replace(copy, target)
    return ImportResult(file, "accepted", digest, target.name, lines, rejects)


def _find_duplicate(copy: Path, digest: str, raw: Path) -> Path | None:
    """A raw file with the same content under any name."""
    size = copy.stat().st_size
    files = (file for file in sorted(raw.iterdir()) if file.is_file() and file.name[0] != ".")
    return next((f for f in files if f.stat().st_size == size and sha256(f) == digest), None)


def _raw_file_name(name: str, dataset: str, digest: str) -> str:
    suffix = SUFFIX.search(name)
    assert suffix is not None
    meta = "meta_" if is_metadata(name) else ""
    return f"{meta}{dataset}.{digest[:16]}{suffix[0].lower()}"


def _check_file(file: Path, raw: Path, config: InteractionsConfig) -> tuple[int, int]:
    """The number of lines and of malformed lines; DataError if the interactions stage would refuse the file."""
    if not SUFFIX.search(file.name):
        raise DataError(f"{file.name} has an unknown format: expected {FORMATS}")
    if is_ready_split(file.name) or any(is_ready_split(other.name) for other in raw.iterdir()):
        raise DataError(
            f"{file.name}: a ready split (.train.csv ...) cannot grow by new files: give the dataset one file of all "
            "interactions as its source"
        )
    counts = LineCounts(file.name)
    for _ in counts.count(parse_file(file, DateRange(config.earliest, config.latest))):
        pass
    counts.check(config.max_reject_share)
    return counts.lines, counts.reasons.total()
