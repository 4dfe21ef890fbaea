"""Digests of what a training depends on: the code that it runs, and the data that it is trained on.

Imports are followed, so that a new system leaves the keys of the others as they are. Comments, docstrings and modules
that only read, write or report do not count."""

import ast
import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import llmsrec
from llmsrec.data.splits import Splits
from llmsrec.llm.pretrained import folder_digest

ROOT = Path(llmsrec.__file__).parents[1]
IGNORED = {
    "llmsrec.core.errors",
    "llmsrec.core.config",
    "llmsrec.core.files",
    "llmsrec.core.names",
    "llmsrec.core.progress",
}
ENCODERS = {"encoder", "text_encoder"}  # settings that name an encoder
BUILT_HERE = {"backbone", "small"}  # values that name no folder
TEXTS = ["title", "description", "brand", "category"]


def code_of(*parts: Any) -> str:
    """The digest of the modules of these classes or functions and of all library modules that they import."""
    return code_digest(*(Path(inspect.getfile(part)) for part in parts))


@cache
def code_digest(*files: Path) -> str:
    """The digest of these files and of all library modules that they import."""
    programs: dict[Path, str] = {}
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in programs:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            waiting += _imported(tree)
            programs[file] = _without_docstrings(tree)
    digest = hashlib.sha256()
    for file in sorted(programs, key=lambda file: file.name + programs[file]):
        digest.update(programs[file].encode())
    return digest.hexdigest()


def _imported(tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("llmsrec.") and name not in IGNORED and file.exists():
                yield file


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def encoders_of(settings: Any) -> list[str]:
    """The digest of each folder that the settings name as an encoder, since its weights may change."""
    digests = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            digests += encoders_of(value)
        elif field.name in ENCODERS and value not in BUILT_HERE and Path(value).is_dir():
            digests.append(folder_digest(Path(value)))
    return digests


def learned_from(splits: Splits) -> tuple[Any, ...]:
    """The texts, histories, training histories and candidates of these splits."""
    candidates = [
        array
        for parts in (splits.candidates, splits.generation_candidates)
        for drawn in parts.values()
        for array in (drawn.items, drawn.targets)
    ]
    rows, texts = splits.sequences, splits.catalog.items[TEXTS].to_numpy().tolist()
    return (
        texts, rows.items, rows.timestamps, splits.train.items, splits.train_lengths,
        *candidates,
    )  # fmt: skip
