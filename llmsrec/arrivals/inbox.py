"""Where new files of a dataset arrive: a folder, or a prefix on S3.

A file is settled when it has not changed for a while, or when a `_SUCCESS` was written after it. Only files right in
the inbox count; `done/` and `rejected/` below it hold what was dealt with.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from llmsrec.core.config import Natural, from_mapping, read_section
from llmsrec.core.errors import ConfigError
from llmsrec.core.files import sha256
from llmsrec.sources.download import receive, retry
from llmsrec.sources.remote import Found, S3Remote

MARKER = "_SUCCESS"
DONE, REJECTED = "done", "rejected"


@dataclass(frozen=True)
class InboxConfig:
    source: str | None  # a folder, or s3://bucket/prefix
    settled_seconds: Natural
    push: bool  # what arrived, to DVC's remote; the orchestrator does so


@dataclass(frozen=True)
class InboxFile:
    """A file in an inbox: `tag` is another one when it changes, `changed` is the time of that in seconds."""

    name: str
    size: int
    tag: str
    changed: float


@runtime_checkable
class Inbox(Protocol):
    def files(self) -> list[InboxFile]: ...

    def fetch(self, file: InboxFile, target: Path) -> bool:
        """Copy it; False if it changed or went meanwhile."""
        ...

    def move_to(self, file: InboxFile, digest: str, place: str, note: str | None = None) -> None:
        """Move it below `place` under a free name, its note `<name>.reason.txt` first; one that changed stays."""
        ...


class FolderInbox:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[InboxFile]:
        paths = sorted(path for path in self.folder.iterdir() if path.is_file())
        return [self._look(path) for path in paths if not path.name.startswith(".")]

    def fetch(self, file: InboxFile, target: Path) -> bool:
        path = self.folder / file.name
        try:
            shutil.copyfile(path, target)
            return self._look(path) == file
        except FileNotFoundError:
            return False

    def move_to(self, file: InboxFile, digest: str, place: str, note: str | None = None) -> None:
        path, folder = self.folder / file.name, self.folder / place
        if not path.exists() or self._look(path) != file:
            return
        name = file.name
        if (folder / name).exists() and sha256(folder / name) != digest:
            name = f"{digest[:16]}.{name}"
        folder.mkdir(exist_ok=True)
        if note is not None:
            (folder / f"{name}.reason.txt").write_text(note, encoding="utf-8")
        os.replace(path, folder / name)

    @staticmethod
    def _look(path: Path) -> InboxFile:
        """By ctime: a copy that keeps the sender's time still moves it."""
        state = path.stat()
        return InboxFile(path.name, state.st_size, str(state.st_ctime_ns), state.st_ctime)


class S3Inbox:
    def __init__(self, address: str, remote: S3Remote) -> None:
        self.address, self.remote = address.rstrip("/"), remote

    def files(self) -> list[InboxFile]:
        found = retry(lambda: self.remote.files(self.address), self.address)
        named = [(file.address.rsplit("/", 1)[1], file, changed) for file, changed in found]
        return [
            InboxFile(name, file.size or 0, file.tag, changed)
            for name, file, changed in named
            if not name.startswith(".")
        ]

    def fetch(self, file: InboxFile, target: Path) -> bool:
        address = f"{self.address}/{file.name}"
        found = retry(lambda: self.remote.find(address), address)
        if found is None or found.tag != file.tag:
            return False
        os.replace(receive(self.remote, found, target, found.checksum), target)
        return True

    def move_to(self, file: InboxFile, digest: str, place: str, note: str | None = None) -> None:
        address = f"{self.address}/{place}/{file.name}"
        there = retry(lambda: self.remote.find(address), address)
        if there is not None and there.checksum != ("sha256", digest):
            address = f"{self.address}/{place}/{digest[:16]}.{file.name}"
        source = f"{self.address}/{file.name}"
        now = retry(lambda: self.remote.find(source), source)
        if now is None or now.tag != file.tag:
            return
        if note is not None:
            retry(lambda: self.remote.write(f"{address}.reason.txt", note), address)
        moved = Found(source, file.size, file.tag)
        retry(lambda: self.remote.move(moved, address, digest), address)


def settled(
    files: list[InboxFile], seconds: int, now: float
) -> tuple[list[InboxFile], list[InboxFile]]:
    """Those that may be taken, and those to wait for."""
    marked = max((file.changed for file in files if file.name == MARKER), default=float("-inf"))
    dropped = [file for file in files if file.name != MARKER]
    ready = [f for f in dropped if f.changed <= marked or now - f.changed >= seconds]
    return ready, [file for file in dropped if file not in ready]


def inbox_configs(params: Path) -> dict[str, InboxConfig]:
    """Of each dataset that has an entry in operations.yaml; null is none."""
    found = {}
    for dataset, values in read_section("inbox", params).items():
        where = f"{params}: inbox.{dataset}"
        if values is None:
            continue
        if not isinstance(values, dict):
            raise ConfigError(f"{where} is {values!r}; expected source, settled_seconds and push")
        found[dataset] = from_mapping(InboxConfig, values, where)
    return found


@contextmanager
def open_inbox(source: str) -> Iterator[Inbox]:
    if source.startswith("s3://"):
        os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
        with closing(S3Remote()) as remote:
            yield S3Inbox(source, remote)
    else:
        yield FolderInbox(Path(source).expanduser())
