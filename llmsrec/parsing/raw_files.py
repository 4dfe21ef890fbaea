"""The raw files of a dataset: which files a folder holds, and in which order they are parsed."""

import re
from pathlib import Path

from llmsrec.core.errors import DataError
from llmsrec.relational.interactions import PARTS

_READY_SPLIT = re.compile(r"\.(train|valid|test)\.csv(\.gz)?$")


def raw_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Review files (train before valid before test) and metadata files of a folder; DataError if it is invalid.

    Otherwise sorted by name. Imported files are named by a hash of their content and sort before `meta_X.jsonl`:
    so imported metadata corrects an item's texts, and the result depends on the set of files, not on their arrival."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: fetch the raw files first (`llmsrec download`)")
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    supported = [file for file in files if re.search(r"\.(jsonl|csv)(\.gz)?$", file.name)]
    if unsupported := [file.name for file in files if file not in supported]:
        raise DataError(
            f"{folder} holds {unsupported}: only .jsonl and .csv are supported, gzipped or not"
        )
    metadata = [file for file in supported if file.name.startswith("meta_")]
    reviews = [file for file in supported if file not in metadata]
    reviews.sort(key=lambda file: (part_of(file) or 0, file))
    if not reviews:
        raise DataError(f"{folder} holds no review file (.jsonl or .csv, gzipped or not)")
    if len({part_of(file) is None for file in reviews}) > 1:
        raise DataError(
            f"{folder} mixes a ready split (.train.csv ...) with unsplit files: keep one kind"
        )
    return reviews, metadata


def is_ready_split(name: str) -> bool:
    """Whether a file name says train, valid or test."""
    return _READY_SPLIT.search(name) is not None


def part_of(file: Path) -> int | None:
    """0, 1 or 2 for train, valid or test of a ready split, else None."""
    match = _READY_SPLIT.search(file.name)
    return PARTS.index(match[1]) if match else None
