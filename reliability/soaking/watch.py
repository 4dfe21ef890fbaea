"""Looks at all that a reader of the project could open, all the time: what is visible must be whole."""

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
PAUSE = 0.05  # seconds between two looks
State = tuple[int, int, int]


class Watcher:
    """A context; afterwards `broken` has a sentence for each file that was not whole, `looked` how many were read.

    `known` has the content's sha256 of raw files by name; those that arrive carry theirs in their name."""

    def __init__(self, root: Path, known: dict[str, str]) -> None:
        self.root, self.known = root, known
        self.broken: list[str] = []
        self.looked = 0
        self._seen: dict[Path, State] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Watcher":
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
        self.look()

    def look(self) -> None:
        """Once at each file that changed since the last time."""
        for path in visible(self.root):
            try:
                found = path.stat()
                state = (found.st_ino, found.st_mtime_ns, found.st_size)
                if self._seen.get(path) == state:
                    continue
                self._seen[path] = state
                fault = self._fault(path)
            except FileNotFoundError:
                continue  # removed or replaced meanwhile
            self.looked += 1
            if fault is not None:
                self.broken.append(f"{path.relative_to(self.root)} was not whole: {fault}")

    def _watch(self) -> None:
        while not self._end.wait(PAUSE):
            self.look()

    def _fault(self, path: Path) -> str | None:
        if path.is_relative_to(self.root / "data"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            wanted = self.known.get(path.name) or path.name.split(".")[1]
            return None if digest.startswith(wanted) else "other bytes than were sent"
        check = CHECKS.get(path.suffix)
        try:
            return check(path) if check else None
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__


def visible(root: Path) -> Iterator[Path]:
    """What has no hidden part in its path: what is written aside has."""
    for name in FOLDERS:
        for folder, inner, files in os.walk(root / name):
            inner[:] = [one for one in inner if not one.startswith(".")]
            yield from (Path(folder, file) for file in files if not file.startswith("."))


def _parquet(path: Path) -> None:
    with path.open("rb") as file:
        pq.ParquetFile(file).read()


def _safetensors(path: Path) -> str | None:
    """By its own header: where the last tensor ends."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    wanted = start + max(ends, default=0)
    return None if len(content) == wanted else f"{len(content)} bytes of {wanted}"


def _json(path: Path) -> None:
    json.loads(path.read_text(encoding="utf-8"))


def _numpy(path: Path) -> None:
    np.load(path, allow_pickle=False)


def _png(path: Path) -> str | None:
    return None if path.read_bytes().endswith(b"IEND\xaeB`\x82") else "no end"


def _html(path: Path) -> str | None:
    return None if path.read_text(encoding="utf-8").rstrip().endswith("</html>") else "no end"


CHECKS: dict[str, Callable[[Path], str | None]] = {
    ".parquet": _parquet,
    ".safetensors": _safetensors,
    ".json": _json,
    ".npy": _numpy,
    ".png": _png,
    ".html": _html,
}
