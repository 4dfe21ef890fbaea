"""A resolved stage of a DVC project, read from the objects of DVC's index."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Output:
    """A file or folder that a stage writes; `md5` and `size` are None until dvc.lock has them."""

    path: str
    md5: str | None
    size: int | None
    kind: str  # data | metric | plot


@dataclass(frozen=True)
class Stage:
    """One resolved stage; `item` is its matrix item, None for a stage without a matrix."""

    address: str
    name: str
    item: str | None
    description: str | None
    meta: Mapping[str, Any]
    command: str
    code: tuple[str, ...]  # dependencies tracked by git
    sources: tuple[str, ...]  # dependencies that are `external` folders or outputs of `.dvc` files
    upstream: tuple[str, ...]  # addresses
    params: Mapping[str, Any]
    outputs: tuple[Output, ...]

    @property
    def data_version(self) -> str:
        """The md5s of all outputs, joined by `+`."""
        return "+".join(output.md5 or "none" for output in self.outputs)

    def code_version(self, root: Path) -> str:
        """Hash of the command in dvc.yaml and of the content of the code dependencies."""
        digest = hashlib.sha256(self.command.encode())
        for base in (root / path for path in sorted(self.code)):
            for file in [base, *sorted(base.rglob("*"))]:
                if file.is_file() and "__pycache__" not in file.parts:
                    digest.update(str(file.relative_to(root)).encode())
                    digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


class ParsedFiles:
    """The content of a DVC project's files, each parsed once: DVC's YAML parser takes a tenth of a second a file."""

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse
        self._documents: dict[str, Any] = {}

    def load(self, path: str) -> Any:
        """The document in a file; raises DvcException."""
        if path not in self._documents:
            self._documents[path] = self._parse(path)
        return self._documents[path]

    def params(self, dependency: Any) -> dict[str, Any]:
        """Like `read_params` of a DVC dependency: the values by dotted key; a missing file or key has none."""
        if not Path(dependency.fs_path).is_file():
            return {}
        document = self.load(dependency.fs_path)
        if not dependency.params:
            return dict(document)
        found = ((key, _lookup(document, key.split("."))) for key in dependency.params)
        return {key: value for key, value in found if value is not _MISSING}


_MISSING = object()


def _lookup(document: Any, keys: list[str]) -> Any:
    for key in keys:
        if not isinstance(document, Mapping) or key not in document:
            return _MISSING
        document = document[key]
    return document


def read_stage(
    dvc_stage: Any, graph: Any, root: Path, external: Iterable[str], files: ParsedFiles
) -> Stage:
    """The stage of a `dvc.stage.Stage`; `graph` is DVC's graph, whose edges point upstream."""
    code, sources = _dependencies(dvc_stage, graph, root, external)
    name, _, item = dvc_stage.name.partition("@")
    params: dict[str, Any] = {}
    for dependency in dvc_stage.params:
        params.update(files.params(dependency))
    upstream = sorted(stage_address(node, root) for node in graph.successors(dvc_stage) if node.cmd)
    return Stage(
        address=stage_address(dvc_stage, root),
        name=name,
        item=item or None,
        description=dvc_stage.desc,
        meta=(dvc_stage.meta or {}).get("dagster", {}),
        command=_command_template(files.load(dvc_stage.path), name),
        code=tuple(code),
        sources=tuple(sorted(sources)),
        upstream=tuple(upstream),
        params=params,
        outputs=tuple(_output(out, root) for out in dvc_stage.outs),
    )


def _dependencies(
    dvc_stage: Any, graph: Any, root: Path, external: Iterable[str]
) -> tuple[list[str], set[str]]:
    """Dependencies that no stage and no `.dvc` file produces, and the sources among the others."""
    has_stage = dict.fromkeys(external, False)  # by produced path: whether a stage writes it
    for node in graph.successors(dvc_stage):
        has_stage.update({_relative(out, root): bool(node.cmd) for out in node.outs})
    code: list[str] = []
    sources: set[str] = set()
    for dependency in dvc_stage.deps:
        if dependency in dvc_stage.params:
            continue
        path = _relative(dependency, root)
        bases = [
            base
            for base in has_stage
            if Path(path).is_relative_to(base) or Path(base).is_relative_to(path)
        ]
        if not bases:
            code.append(path)
        sources.update(base for base in bases if not has_stage[base])
    return code, sources


def stage_address(dvc_stage: Any, root: Path) -> str:
    """The address relative to `root`; DVC's own `addressing` is relative to the working directory."""
    path = Path(os.path.relpath(dvc_stage.path, root)).as_posix()
    name = getattr(dvc_stage, "name", None)  # None for a .dvc file
    if name is None:
        return path
    return str(name) if path == "dvc.yaml" else f"{path}:{name}"


def _relative(node: Any, root: Path) -> str:
    """The path of a DVC dependency or output relative to `root`."""
    return Path(os.path.relpath(node.fs_path, root)).as_posix()


def _command_template(pipeline: Any, name: str) -> str:
    """The command as written in dvc.yaml, before the matrix item is inserted."""
    entry = pipeline["stages"][name]
    return str(entry.get("do", entry)["cmd"])


def _output(out: Any, root: Path) -> Output:
    kind = "metric" if out.metric else "plot" if out.plot else "data"
    return Output(_relative(out, root), out.hash_info.value, out.meta.size, kind)
