"""The inbox of a dataset, where new files arrive: a folder, or a prefix on S3.

A file is ready when it has not changed for some time, or when a `_SUCCESS` file was written after it. Only files
directly in the inbox count; the subfolders `done/` and `rejected/` hold processed ones.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from llmsrec.core.config import Natural, from_mapping, read_section
from llmsrec.core.files import sha256
from llmsrec.sources.download import download_verified
from llmsrec.sources.remote import RemoteFile, retry
from llmsrec.sources.s3 import S3Remote

MARKER = "_SUCCESS"
DONE, REJECTED = "done", "rejected"


@dataclass(frozen=True)
class InboxConfig:
    """The inbox of one dataset in operations.yaml."""

    source: str | None  # a folder, or s3://bucket/prefix
    settled_seconds: Natural
    push: bool  # new files to DVC's remote; the orchestrator does so


@dataclass(frozen=True)
class InboxFile:
    """A file in an inbox: `tag` changes with its content; `changed` is the time of the last change in seconds."""

    name: str
    size: int
    tag: str
    changed: float


@runtime_checkable
class Inbox(Protocol):
    """A place where new files arrive."""

    def files(self) -> list[InboxFile]: ...

    def fetch(self, file: InboxFile, target: Path) -> bool:
        """Copy a file to `target`; False if it was changed or removed since it was listed."""
        ...

    def move_to(
        self, file: InboxFile, digest: str, subfolder: str, reason: str | None = None
    ) -> None:
        """Move a file to a subfolder under a free name, after writing `<name>.reason.txt`; a changed file stays."""
        ...


class FolderInbox:
    """An inbox in a folder, which is created if necessary."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[InboxFile]:
        paths = sorted(path for path in self.folder.iterdir() if path.is_file())
        return [self._stat(path) for path in paths if not path.name.startswith(".")]

    def fetch(self, file: InboxFile, target: Path) -> bool:
        path = self.folder / file.name
        try:
            shutil.copyfile(path, target)
            return self._stat(path) == file
        except FileNotFoundError:
            return False

    def move_to(
        self, file: InboxFile, digest: str, subfolder: str, reason: str | None = None
    ) -> None:
        path, folder = self.folder / file.name, self.folder / subfolder
        if not path.exists() or self._stat(path) != file:
            return
        name = file.name
        if (folder / name).exists() and sha256(folder / name) != digest:
            name = f"{digest[:16]}.{name}"
        folder.mkdir(exist_ok=True)
        if reason is not None:
            (folder / f"{name}.reason.txt").write_text(reason, encoding="utf-8")
        os.replace(path, folder / name)

    @staticmethod
    def _stat(path: Path) -> InboxFile:
        """Uses ctime, because a copy that preserves the sender's mtime still changes it."""
        status = path.stat()
        return InboxFile(path.name, status.st_size, str(status.st_ctime_ns), status.st_ctime)


class S3Inbox:
    """An inbox below a prefix on S3."""

    def __init__(self, address: str, remote: S3Remote) -> None:
        self.address, self.remote = address.rstrip("/"), remote

    def files(self) -> list[InboxFile]:
        objects = retry(lambda: self.remote.list_files(self.address), self.address)
        files = [
            InboxFile(file.address.rsplit("/", 1)[1], file.size or 0, file.tag, changed)
            for file, changed in objects
        ]
        return [file for file in files if not file.name.startswith(".")]

    def fetch(self, file: InboxFile, target: Path) -> bool:
        current = self._find(file.name)
        if current is None or current.tag != file.tag:
            return False
        os.replace(download_verified(self.remote, current, target, current.checksum), target)
        return True

    def move_to(
        self, file: InboxFile, digest: str, subfolder: str, reason: str | None = None
    ) -> None:
        name = f"{subfolder}/{file.name}"
        existing = self._find(name)
        if existing is not None and existing.checksum != ("sha256", digest):
            name = f"{subfolder}/{digest[:16]}.{file.name}"
        target = f"{self.address}/{name}"
        current = self._find(file.name)
        if current is None or current.tag != file.tag:
            return
        if reason is not None:
            retry(lambda: self.remote.write_text(f"{target}.reason.txt", reason), target)
        retry(lambda: self.remote.move(current, target, digest), target)

    def _find(self, name: str) -> RemoteFile | None:
        address = f"{self.address}/{name}"
        return retry(lambda: self.remote.find(address), address)


def ready_and_waiting(
    files: list[InboxFile], seconds: int, now: float
) -> tuple[list[InboxFile], list[InboxFile]]:
    """The files to import, and those that may still change because they changed in the last `seconds`."""
    marked = max((file.changed for file in files if file.name == MARKER), default=float("-inf"))
    ready: list[InboxFile] = []
    waiting: list[InboxFile] = []
    for file in files:
        if file.name != MARKER:
            is_ready = file.changed <= marked or now - file.changed >= seconds
            (ready if is_ready else waiting).append(file)
    return ready, waiting


def inbox_configs(params: Path) -> dict[str, InboxConfig]:
    """The inbox of each dataset that has one in operations.yaml; ConfigError if an entry is invalid."""
    configs = {}
    for dataset, values in read_section("inbox", params).items():
        if values is not None:
            configs[dataset] = from_mapping(InboxConfig, values, f"{params}: inbox.{dataset}")
    return configs


@contextmanager
def open_inbox(source: str) -> Iterator[Inbox]:
    """The inbox at a folder or an s3:// address."""
    if source.startswith("s3://"):
        with closing(S3Remote()) as remote:
            yield S3Inbox(source, remote)
    else:
        yield FolderInbox(Path(source).expanduser())
