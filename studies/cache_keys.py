"""What a training depends on, as digests: the code that it runs, and the store that it learns from.

The code is followed by its imports, so that a new system costs the others nothing; comments, docstrings and what
only reads, writes or tells do not count."""

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
from llmsrec.llm.backbone import folder_digest

ROOT = Path(llmsrec.__file__).parents[1]
TELLS = {
    "llmsrec.core.errors",
    "llmsrec.core.config",
    "llmsrec.core.files",
    "llmsrec.core.progress",
}
ENCODERS = {"encoder", "text_encoder"}  # settings that name one
BUILT_HERE = {"backbone", "small"}  # no folders, whatever lies in this one
TEXTS = ["title", "description", "brand", "category"]


def code_of(*parts: Any) -> str:
    """Of the modules of these classes or functions, and all of the library that they import."""
    return code_digest(*(Path(inspect.getfile(part)) for part in parts))


@cache
def code_digest(*files: Path) -> str:
    """Of files, and all of the library that they import."""
    found: dict[Path, str] = {}
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        if file not in found:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            waiting += _imported(tree)
            found[file] = _bare(tree)
    digest = hashlib.sha256()
    for file in sorted(found, key=lambda file: file.name + found[file]):
        digest.update(found[file].encode())
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
            if name.startswith("llmsrec.") and name not in TELLS and file.exists():
                yield file


def _bare(tree: ast.Module) -> str:
    """The program without what it says about itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def encoders_of(settings: Any) -> list[str]:
    """The weights in each folder that they name as an encoder: its name stays when they change."""
    found = []
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            found += encoders_of(value)
        elif field.name in ENCODERS and value not in BUILT_HERE and Path(value).is_dir():
            found.append(folder_digest(Path(value)))
    return found


def learned_from(splits: Splits) -> tuple[Any, ...]:
    """The histories, the texts, and what validates."""
    held_out = [
        part
        for drawn in (splits.candidates, splits.generation_candidates)
        for found in drawn.values()
        for part in (found.items, found.targets)
    ]
    rows, texts = splits.sequences, splits.catalog.items[TEXTS].to_numpy().tolist()
    return (
        texts, rows.items, rows.timestamps, splits.train.items, splits.train_lengths,
        *held_out,
    )  # fmt: skip
