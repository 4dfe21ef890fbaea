"""Atomic writes: a file or folder appears under its final name only when it is complete."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmsrec.core.errors import ArtifactError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces `path` on success and is removed on error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_partials(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        fsync_path(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_stale_partials(path: Path) -> None:
    """Remove the temporary files of `path` whose process no longer exists."""
    start, end = f".{path.name}.", ".partial"
    for file in path.parent.iterdir():
        if file.name.startswith(start) and file.name.endswith(end):
            pid = file.name[len(start) : -len(end)]
            if pid.isdecimal() and not _process_exists(int(pid)):
                file.unlink(missing_ok=True)


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        pass
    return True


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it replaces `path` on success and is removed on error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging, old = (path.with_name(f".{path.name}.{kind}") for kind in ("partial", "old"))
    for stale in (staging, old):  # from a run that was killed
        shutil.rmtree(stale, ignore_errors=True)
    staging.mkdir()
    try:
        yield staging
        for file in staging.rglob("*"):
            if file.is_file():
                fsync_path(file)
        if path.exists():
            os.replace(path, old)  # a kill while `path` is deleted in place would leave part of it
        os.replace(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Let one process at a time run the block; the lock is on the folder itself and leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON file atomically; NaN and infinity raise ValueError."""
    with atomic_write(path) as temporary:
        text = json.dumps(document, indent=2, allow_nan=False) + "\n"
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Load a JSON file; ArtifactError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the step that writes it (`dvc repro`)"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete its folder and rerun") from None


def sha256(path: Path) -> str:
    """The hex digest of a file's content."""
    return hash_file(path, "sha256")


def hash_file(path: Path, algorithm: str) -> str:
    """The hex digest of a file's content by an algorithm of hashlib."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fsync_path(path: Path) -> None:
    """Flush a file's content to disk, so that a rename cannot reach the disk before it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
