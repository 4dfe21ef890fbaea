"""Continuously reads all visible files of a project: each must be complete at any time."""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow.parquet as pq

FOLDERS = ("artifacts", "data", "reports")
PAUSE = 0.05  # seconds between two scans
State = tuple[int, int, int]


class FileWatcher:
    """A context manager; `broken` has a sentence for each incomplete file, `num_read` counts the files read.

    `checksums` has the sha256 of raw files by name; arrived files have theirs in their name.
    """

    def __init__(self, root: Path, checksums: dict[str, str]) -> None:
        self.root, self.checksums = root, checksums
        self.broken: list[str] = []
        self.num_read = 0
        self._seen: dict[Path, State] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "FileWatcher":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()
        self.scan()

    def scan(self) -> None:
        """Read each file that changed since the last scan."""
        for path in visible_files(self.root):
            try:
                stat = path.stat()
                state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
                if self._seen.get(path) == state:
                    continue
                self._seen[path] = state
                fault = self._fault(path)
            except FileNotFoundError:
                continue  # removed or replaced meanwhile
            self.num_read += 1
            if fault is not None:
                self.broken.append(f"{path.relative_to(self.root)} was incomplete: {fault}")

    def _watch(self) -> None:
        while not self._end.wait(PAUSE):
            self.scan()

    def _fault(self, path: Path) -> str | None:
        if path.is_relative_to(self.root / "data"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            expected = self.checksums.get(path.name) or path.name.split(".")[1]
            return None if digest.startswith(expected) else "its bytes differ from those delivered"
        check = CHECKS.get(path.suffix)
        try:
            return check(path) if check else None
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__


def visible_files(root: Path) -> Iterator[Path]:
    """The files without a hidden part in their path; atomic writes use hidden names until they are complete."""
    for name in FOLDERS:
        for folder, subfolders, files in os.walk(root / name):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            yield from (Path(folder, file) for file in files if not file.startswith("."))


def _parquet(path: Path) -> None:
    with path.open("rb") as file:
        pq.ParquetFile(file).read()


def _safetensors(path: Path) -> str | None:
    """The header says where the last tensor ends."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = start + max(ends, default=0)
    return None if len(content) == expected else f"{len(content)} bytes of {expected}"


def _json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _numpy(path: Path) -> None:
    np.load(path, allow_pickle=False)


def _png(path: Path) -> str | None:
    return None if path.read_bytes().endswith(b"IEND\xaeB`\x82") else "it is truncated"


def _html(path: Path) -> str | None:
    return (
        None if path.read_text(encoding="utf-8").rstrip().endswith("</html>") else "it is truncated"
    )


CHECKS: dict[str, Callable[[Path], str | None]] = {
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".json": _json,
    ".npy": _numpy,
    ".png": _png,
    ".html": _html,
}
