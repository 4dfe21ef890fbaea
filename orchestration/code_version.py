"""The code version of a stage, for Dagster."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from orchestration.dvc_stage import Stage


def code_version(root: Path, stage: Stage) -> str:
    """Hash of the command in dvc.yaml and of the content of the stage's code dependencies."""
    digest = hashlib.sha256(stage.command.encode())
    for base in sorted(stage.code):
        for file in _files(root / base):
            digest.update(str(file.relative_to(root)).encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    for file in sorted(path.rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file
