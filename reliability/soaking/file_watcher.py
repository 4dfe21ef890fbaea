"""Continuously reads all visible files of a project: each must be complete at any time."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file

FOLDERS = ("artifacts", "data", "reports")
PAUSE = 0.05  # seconds between two scans
READERS: dict[str, Callable[[Path], Any]] = {
    ".parquet": lambda path: pq.read_table(path, partitioning=None),
    ".safetensors": load_file,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".npy": np.load,
}
LAST_BYTES = {".png": b"IEND\xaeB`\x82", ".html": b"</html>"}


@contextmanager
def watched_files(root: Path, checksums: dict[str, str]) -> Iterator[list[str]]:
    """During the block, and once after it, read each file that changed; yields a list of the incomplete ones.

    `checksums` has the sha256 of raw files by name; arrived files have theirs in their name."""
    broken: list[str] = []
    seen: dict[Path, tuple[int, int, int]] = {}
    end = threading.Event()

    def scan() -> None:
        for path in visible_files(root):
            try:
                stat = path.stat()
                state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                fault = None if seen.get(path) == state else fault_of(path, checksums)
            except FileNotFoundError:
                continue  # removed or replaced meanwhile
            seen[path] = state
            if fault is not None:
                broken.append(f"{path.relative_to(root)} was incomplete: {fault}")

    def watch() -> None:
        while not end.wait(PAUSE):
            scan()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield broken
    finally:
        end.set()
        thread.join()
    scan()


def visible_files(root: Path) -> Iterator[Path]:
    """The files without a hidden part in their path; atomic writes use hidden names until they are complete."""
    for name in FOLDERS:
        for folder, subfolders, files in os.walk(root / name):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            yield from (Path(folder, file) for file in files if not file.startswith("."))


def fault_of(path: Path, checksums: dict[str, str]) -> str | None:
    """What is wrong with a file, if anything; raises FileNotFoundError."""
    if ".jsonl" in path.suffixes:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        expected = checksums.get(path.name) or path.name.split(".")[1]
        return None if digest.startswith(expected) else "its bytes differ from those delivered"
    try:
        if path.suffix in READERS:
            READERS[path.suffix](path)
        elif not path.read_bytes().rstrip().endswith(LAST_BYTES.get(path.suffix, b"")):
            return "it is truncated"
    except FileNotFoundError:
        raise
    except (OSError, ValueError, SafetensorError) as error:
        return str(error) or type(error).__name__
    return None
