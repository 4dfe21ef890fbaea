"""A DVC project as Dagster needs it: the resolved graph, stages run in a child process, hashes from dvc.lock.

The only module that imports dvc. `Repo.index` and `Stage.changed` are not public API of DVC;
tests/orchestration/test_dvc_project.py states what a new version of DVC must keep.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from orchestration.child import run_child
from orchestration.dvc_stage import Stage, read_stage, stage_address

T = TypeVar("T")
Log = Callable[[str], None]

BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
UNCHANGED = "didn't change, skipping"
RESTORED = "is cached - skipping run"
PUSH_REFUSED = {
    "no remote specified": "DVC has no remote: `dvc remote add --default NAME URL` names one (a folder, s3://bucket/prefix)",
    "Unable to locate credentials": "no credentials for DVC's remote: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or AWS_PROFILE, where Dagster runs",
}


class DvcError(Exception):
    """A DVC command or read failed; the message holds DVC's output."""


@dataclass(frozen=True)
class Result:
    """The result of a stage: its outcome, its duration and the last lines of its output."""

    outcome: str  # ran | restored | unchanged | failed
    seconds: float
    tail: tuple[str, ...]


class DvcProject:
    """The stages of `pipelines` in the DVC project at `root`; stages of other files are ignored.

    The folders in `external` are data even before a `.dvc` file tracks them. Waits at most `timeout` seconds for
    other DVC processes.
    """

    def __init__(
        self,
        root: Path,
        external: tuple[str, ...] = (),
        timeout: float = 3600,
        pipelines: tuple[str, ...] = ("dvc.yaml",),
    ) -> None:
        self.root, self.external, self.timeout = root, external, timeout
        self.pipelines = tuple(root / file for file in pipelines)

    @property
    def locks(self) -> list[Path]:
        """The existing dvc.lock files."""
        paths = (file.with_name("dvc.lock") for file in self.pipelines)
        return [file for file in paths if file.is_file()]

    def stages(self) -> dict[str, Stage]:
        """All stages by address, upstream first."""
        return self._read(self._stages)

    def stage(self, address: str) -> Stage:
        return self.stages()[address]

    def is_stale(self, address: str, log: Log = lambda _: None) -> bool:
        """Whether `dvc repro --single-item` would run or restore this stage."""

        def changed() -> bool:
            from dvc.repo import Repo

            with Repo(str(self.root)) as repo, repo.lock:
                stages = [s for s in repo.index.stages if stage_address(s, self.root) == address]
                return not stages or any(stage.changed() for stage in stages)

        return self._read(changed, log)

    def run(self, address: str, log: Log, env: Mapping[str, str] | None = None) -> Result:
        """Run `dvc repro --single-item` for this stage; every line of its output goes to `log`."""
        start = time.monotonic()
        returncode, tail = self._dvc(["repro", "--single-item", address], log, env)
        output = "\n".join(tail)
        outcome = "ran"
        if returncode:
            outcome = "failed"
        elif UNCHANGED in output:
            outcome = "unchanged"
        elif RESTORED in output:
            outcome = "restored"
        return Result(outcome, time.monotonic() - start, tuple(tail))

    def add(self, tracked: str, paths: list[str], log: Log) -> None:
        """Track `paths` inside the tracked folder, or the whole folder if its listing is not in the cache.

        Raises DvcError if `dvc add` fails or would drop files that are not on this machine.
        """
        if not (self.root / f"{tracked}.dvc").exists():
            paths = [tracked]
        returncode, tail = self._dvc(["add", *paths], lambda _: None)
        if returncode and any(".dir'" in line for line in tail):
            self._check_nothing_missing(tracked, paths)
            returncode, tail = self._dvc(["add", tracked], log)
        if returncode:
            raise DvcError(f"`dvc add {' '.join(paths)}` failed:\n" + "\n".join(tail))

    def _check_nothing_missing(self, tracked: str, new: list[str]) -> None:
        """`dvc add` of the whole folder would silently drop files that another machine tracked."""
        text = (self.root / f"{tracked}.dvc").read_text(encoding="utf-8")
        expected = int(yaml.safe_load(text)["outs"][0].get("nfiles", 0))
        files = {path for path in (self.root / tracked).rglob("[!.]*") if path.is_file()}
        present = len(files - {self.root / path for path in new})
        if present < expected:
            raise DvcError(
                f"{tracked}.dvc names {expected} files and {present} are here: `dvc pull {tracked}.dvc` first, or "
                f"remove {tracked}.dvc to track only what is here"
            )

    def push(self, tracked: str, log: Log) -> None:
        """Send the files of a tracked folder that the remote lacks; raises DvcError."""
        returncode, tail = self._dvc(["push", f"{tracked}.dvc"], log)
        if returncode:
            output = "\n".join(tail)
            causes = [cause for mark, cause in PUSH_REFUSED.items() if mark in output]
            raise DvcError("\n".join([f"`dvc push {tracked}.dvc` failed", *causes[:1], output]))

    def tracked_hash(self, path: str) -> str | None:
        """DVC's hash of a tracked path, or of a path inside a tracked folder; None if it is not tracked."""

        def read() -> str | None:
            from dvc.repo import Repo

            with Repo(str(self.root)) as repo:
                for out in repo.index.outs:
                    base = Path(os.path.relpath(out.fs_path, self.root))
                    if not Path(path).is_relative_to(base):
                        continue
                    parts = Path(path).relative_to(base).parts
                    return _part_hash(repo, out, parts) if parts else out.hash_info.value
            return None

        return self._read(read)

    def _stages(self) -> dict[str, Stage]:
        from dvc.repo import Repo
        from networkx import topological_sort

        with Repo(str(self.root)) as repo:
            graph = repo.index.graph
            order = topological_sort(graph.reverse(copy=True))
            files = [file.resolve() for file in self.pipelines]
            stages = [
                read_stage(dvc_stage, graph, self.root, self.external)
                for dvc_stage in order
                if dvc_stage.cmd and Path(dvc_stage.path) in files
            ]
            return {stage.address: stage for stage in stages}

    def _dvc(
        self, arguments: list[str], log: Log, env: Mapping[str, str] | None = None
    ) -> tuple[int, list[str]]:
        """Run dvc, and retry after a pause while another process locks one of the paths."""
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
        pauses = _pauses(self.timeout, log)
        while True:
            returncode, tail = run_child(command, self.root, log, env)
            if not (returncode and _is_busy("\n".join(tail)) and next(pauses, False)):
                return returncode, tail

    def _read(self, read: Callable[[], T], log: Log = lambda _: None) -> T:
        """Call `read`, and retry while another process locks a path or is writing dvc.lock."""
        from dvc.exceptions import DvcException

        pauses, failures = _pauses(self.timeout, log), 0
        while True:
            try:
                return read()
            except DvcException as error:
                busy = _is_busy(str(error))
                failures += not busy
                if failures == 10 or (busy and not next(pauses, False)):
                    raise DvcError(f"{self.root}: {error}") from error
                if not busy:
                    time.sleep(0.2 * failures)


def _is_busy(output: str) -> bool:
    return any(mark in output for mark in BUSY)


def _pauses(timeout: float, log: Log) -> Iterator[bool]:
    """Sleep with growing pauses and yield True after each, until `timeout` seconds are over."""
    deadline, pause = time.monotonic() + timeout, 0.5
    while time.monotonic() < deadline:
        log(f"another DVC process holds a path; trying again in {pause:.1f} s")
        time.sleep(pause)
        pause = min(2 * pause, 15.0)
        yield True


def _part_hash(repo: Any, out: Any, parts: tuple[str, ...]) -> str | None:
    tree = out.get_obj()
    part = tree.get_obj(repo.cache.local, parts) if tree is not None else None
    return None if part is None else str(part.hash_info.value)
