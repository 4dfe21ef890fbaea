"""Write aside, then rename: what stands under its final name is whole."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from llmsrec.core.errors import ArtifactError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path to write to; renamed to `path` when the block ends well, removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield aside
        fsync_path(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """What processes that were killed left aside of this file."""
    start, end = f".{path.name}.", ".partial"
    for left in path.parent.iterdir():
        if left.name.startswith(start) and left.name.endswith(end):
            writer = left.name[len(start) : -len(end)]
            if writer.isdecimal() and not _lives(int(writer)):
                left.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """An empty folder to fill; it takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = (path.with_name(f".{path.name}.{kind}") for kind in ("partial", "old"))
    for left in (aside, old):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                fsync_path(file)
        if path.exists():
            os.replace(path, old)  # removed in place, a kill would leave a part of it
        os.replace(aside, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """One process at a time; the lock leaves no file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, document: Any) -> None:
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_frame(path: Path) -> pd.DataFrame:
    """A Parquet file, whole."""
    with reading_parquet(path):
        return pd.read_parquet(path)


@contextmanager
def reading_parquet(path: Path) -> Iterator[None]:
    """Names a Parquet file that is missing or damaged, and says what mends it."""
    try:
        yield
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `dvc repro` to write it") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(
            f"{path} is damaged ({reason}): remove it, then `dvc checkout` or `dvc repro`"
        ) from None


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: run the step that writes it (`dvc repro`)"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}): delete its folder and rerun") from None


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_path(path: Path) -> None:
    """Onto the disk, before its name is."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
