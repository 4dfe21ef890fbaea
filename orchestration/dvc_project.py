"""A DVC project as Dagster needs it: the resolved graph, stages run in a child, hashes from dvc.lock.

The only importer of dvc. `Repo.index` and `Stage.changed` are no public API; tests/orchestration/test_dvc_project.py
is the contract that a new version of DVC must keep.
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

T = TypeVar("T")
Report = Callable[[str], None]

BUSY = ("is busy, it is being blocked by", "Unable to acquire lock")
UNCHANGED = "didn't change, skipping"
RESTORED = "is cached - skipping run"
PUSH_REFUSED = {
    "no remote specified": "DVC has no remote: `dvc remote add --default NAME URL` names one (a folder, s3://bucket/prefix)",
    "Unable to locate credentials": "no credentials for DVC's remote: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
    "or AWS_PROFILE, where Dagster runs",
}


class DvcError(Exception):
    """DVC refused; its text holds what DVC said."""


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage writes; `md5` is None until dvc.lock knows it."""

    path: str
    md5: str | None
    size: int | None
    kind: str  # data | metric | plot


@dataclass(frozen=True)
class Stage:
    """One resolved stage; `item` is its place in the matrix, None without one."""

    address: str
    name: str
    item: str | None
    description: str | None
    meta: Mapping[str, Any]
    command: str
    code: tuple[str, ...]  # dependencies that git holds
    sources: tuple[str, ...]  # the `external` paths and outputs of `.dvc` files that it reads
    upstream: tuple[str, ...]  # addresses
    params: Mapping[str, Any]
    outputs: tuple[Output, ...]

    @property
    def data_version(self) -> str:
        return "+".join(output.md5 or "none" for output in self.outputs)


@dataclass(frozen=True)
class Result:
    outcome: str  # ran | restored | unchanged | failed
    seconds: float
    tail: tuple[str, ...]


class DvcProject:
    """`external` names folders whose content is data even before a `.dvc` file tracks them; `pipelines` the files
    whose stages are ours, others are somebody else's business."""

    def __init__(
        self,
        root: Path,
        external: tuple[str, ...] = (),
        patience: float = 3600,
        pipelines: tuple[str, ...] = ("dvc.yaml",),
    ) -> None:
        self.root, self.external, self.patience = root, external, patience
        self.pipelines = tuple(root / file for file in pipelines)

    @property
    def locks(self) -> list[Path]:
        """Those that there are."""
        found = (file.with_name("dvc.lock") for file in self.pipelines)
        return [file for file in found if file.is_file()]

    def stages(self) -> dict[str, Stage]:
        """By address, upstream first."""
        return self._reading(self._stages)

    def stage(self, address: str) -> Stage:
        return self.stages()[address]

    def is_stale(self, address: str, report: Report = lambda _: None) -> bool:
        """Whether `dvc repro` would do anything for this stage, its upstreams left aside."""

        def changed() -> bool:
            from dvc.repo import Repo

            with Repo(str(self.root)) as repo, repo.lock:
                found = [s for s in repo.index.stages if _address(s, self.root) == address]
                return not found or any(stage.changed() for stage in found)

        return self._reading(changed, report)

    def run(self, address: str, report: Report, env: Mapping[str, str] | None = None) -> Result:
        """`dvc repro` of this one stage; every line of its output goes to `report`."""
        start = time.monotonic()
        returncode, tail = self._dvc(["repro", "--single-item", address], report, env)
        said = "\n".join(tail)
        outcome = "ran"
        if returncode:
            outcome = "failed"
        elif UNCHANGED in said:
            outcome = "unchanged"
        elif RESTORED in said:
            outcome = "restored"
        return Result(outcome, time.monotonic() - start, tuple(tail))

    def add(self, tracked: str, paths: list[str], report: Report) -> None:
        """Track `paths` inside the tracked folder; the whole of it where its listing is not in the cache."""
        if not (self.root / f"{tracked}.dvc").exists():
            paths = [tracked]
        returncode, tail = self._dvc(["add", *paths], lambda _: None)
        if returncode and any(".dir'" in line for line in tail):
            self._refuse_to_forget(tracked, paths)
            returncode, tail = self._dvc(["add", tracked], report)
        if returncode:
            raise DvcError(f"`dvc add {' '.join(paths)}` failed:\n" + "\n".join(tail))

    def _refuse_to_forget(self, tracked: str, new: list[str]) -> None:
        """Files that another machine tracked and that are not here would go from the `.dvc` file without a word."""
        text = (self.root / f"{tracked}.dvc").read_text(encoding="utf-8")
        known = int(yaml.safe_load(text)["outs"][0].get("nfiles", 0))
        files = {path for path in (self.root / tracked).rglob("[!.]*") if path.is_file()}
        here = len(files - {self.root / path for path in new})
        if here < known:
            raise DvcError(
                f"{tracked}.dvc names {known} files and {here} are here: `dvc pull {tracked}.dvc` first, or remove "
                f"{tracked}.dvc to begin anew with what is here"
            )

    def push(self, tracked: str, report: Report) -> None:
        """Send what the remote lacks of a tracked folder."""
        returncode, tail = self._dvc(["push", f"{tracked}.dvc"], report)
        if returncode:
            said = "\n".join(tail)
            causes = [cause for mark, cause in PUSH_REFUSED.items() if mark in said]
            raise DvcError("\n".join([f"`dvc push {tracked}.dvc` failed", *causes[:1], said]))

    def tracked_hash(self, path: str) -> str | None:
        """DVC's hash of a tracked file or folder, or of a part of one; None while it is not tracked."""

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

        return self._reading(read)

    def _stages(self) -> dict[str, Stage]:
        from dvc.repo import Repo
        from networkx import topological_sort

        with Repo(str(self.root)) as repo:
            graph = repo.index.graph
            order = [
                found for found in topological_sort(graph.reverse(copy=True)) if self._own(found)
            ]
            stages = [self._read(found, graph) for found in order]
            return {stage.address: stage for stage in stages}

    def _own(self, found: Any) -> bool:
        return bool(found.cmd) and Path(found.path) in [file.resolve() for file in self.pipelines]

    def _read(self, found: Any, graph: Any) -> Stage:
        upstream = sorted(_address(o, self.root) for o in graph.successors(found) if o.cmd)
        made = dict.fromkeys(self.external, False)
        for other in graph.successors(found):
            made.update({_relative(out, self.root): bool(other.cmd) for out in other.outs})
        code: list[str] = []
        sources: set[str] = set()
        for dep in found.deps:
            if dep in found.params:
                continue
            path = _relative(dep, self.root)
            bases = [base for base in made if _within(path, base) or _within(base, path)]
            if not bases:
                code.append(path)
            sources.update(base for base in bases if not made[base])
        name, _, item = found.name.partition("@")
        params: dict[str, Any] = {}
        for dep in found.params:
            params.update(dep.read_params())
        return Stage(
            address=_address(found, self.root),
            name=name,
            item=item or None,
            description=found.desc,
            meta=(found.meta or {}).get("dagster", {}),
            command=_template(found, name),
            code=tuple(code),
            sources=tuple(sorted(sources)),
            upstream=tuple(upstream),
            params=params,
            outputs=tuple(_output(out, self.root) for out in found.outs),
        )

    def _dvc(
        self, arguments: list[str], report: Report, env: Mapping[str, str] | None = None
    ) -> tuple[int, list[str]]:
        """Run dvc; again after a pause while another process holds one of the paths."""
        command = [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]
        pauses = _pauses(self.patience, report)
        while True:
            returncode, tail = run_child(command, self.root, report, env)
            if not (returncode and _busy("\n".join(tail)) and next(pauses, False)):
                return returncode, tail

    def _reading(self, read: Callable[[], T], report: Report = lambda _: None) -> T:
        """Read in this process; again when another one holds a path, or writes dvc.lock in that moment."""
        from dvc.exceptions import DvcException

        pauses, failures = _pauses(self.patience, report), 0
        while True:
            try:
                return read()
            except DvcException as error:
                busy = _busy(str(error))
                failures += not busy
                if failures == 10 or (busy and not next(pauses, False)):
                    raise DvcError(f"{self.root}: {error}") from error
                if not busy:
                    time.sleep(0.2 * failures)


def _busy(said: str) -> bool:
    return any(mark in said for mark in BUSY)


def _pauses(patience: float, report: Report) -> Iterator[bool]:
    """True after each of longer and longer pauses, until patience ends."""
    deadline, pause = time.monotonic() + patience, 0.5
    while time.monotonic() < deadline:
        report(f"another DVC process holds a path; trying again in {pause:.1f} s")
        time.sleep(pause)
        pause = min(2 * pause, 15.0)
        yield True


def _within(path: str, base: str) -> bool:
    return Path(path).is_relative_to(base)


def _address(found: Any, root: Path) -> str:
    """As DVC writes it in the root; its own `addressing` is relative to the folder we were started in."""
    path = Path(os.path.relpath(found.path, root)).as_posix()
    name = getattr(found, "name", None)  # a .dvc file has none
    if name is None:
        return path
    return str(name) if path == "dvc.yaml" else f"{path}:{name}"


def _relative(held: Any, root: Path) -> str:
    return Path(os.path.relpath(held.fs_path, root)).as_posix()


def _template(found: Any, name: str) -> str:
    """The command as dvc.yaml writes it, the same for every item of a matrix."""
    written = found.dvcfile.contents["stages"][name]
    return str(written.get("do", written)["cmd"])


def _output(out: Any, root: Path) -> Output:
    kind = "metric" if out.metric else "plot" if out.plot else "data"
    return Output(_relative(out, root), out.hash_info.value, out.meta.size, kind)


def _part_hash(repo: Any, out: Any, parts: tuple[str, ...]) -> str | None:
    tree = out.get_obj()
    part = tree.get_obj(repo.cache.local, parts) if tree is not None else None
    return None if part is None else str(part.hash_info.value)
