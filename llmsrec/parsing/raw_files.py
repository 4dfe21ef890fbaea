"""The raw files of a dataset: which files a folder holds, in which order they are parsed, and by which parser."""

import re
from collections.abc import Iterator
from pathlib import Path

from llmsrec.core.errors import DataError
from llmsrec.parsing.csv_reader import parse_csv_items, parse_csv_reviews
from llmsrec.parsing.line_reader import BOM, ParsedBlock, read_head
from llmsrec.parsing.metadata import parse_metadata
from llmsrec.parsing.reviews import DateRange, parse_reviews
from llmsrec.relational.interactions import PARTS

SUFFIX = re.compile(r"\.(jsonl|json|csv|tsv)(\.gz)?$", re.IGNORECASE)
FORMATS = (
    "reviews as .jsonl, .json (one object per line), .csv or .tsv, item texts as meta_* in the same formats, plain or "
    "with .gz, in UTF-8"
)
_READY_SPLIT = re.compile(r"\.(train|valid|test)" + SUFFIX.pattern, re.IGNORECASE)
# What files of other formats start with, what they hold, and what to do.
_OTHER_FORMATS = {
    b"\x1f\x8b": ("is compressed with gzip", "add .gz to its name"),
    b"\x28\xb5\x2f\xfd": ("is compressed with Zstandard", "decompress it (`zstd -d`)"),
    b"BZh": ("is compressed with bzip2", "decompress it (`bunzip2`)"),
    b"PK\x03\x04": ("is a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"),
    b"PAR1": ("is Parquet", "write it as CSV or JSON lines"),
    b"\xff\xfe": ("is UTF-16", "save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)"),
    b"\xfe\xff": ("is UTF-16", "save it as UTF-8 (`iconv -f UTF-16 -t UTF-8`)"),
    b"[": ("is one JSON array", "write one object per line (`jq -c '.[]'`)"),
}


def raw_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Review files (train before valid before test) and metadata files of a folder; DataError if it is invalid.

    Otherwise sorted by name. Imported files are named by a hash of their content and sort before `meta_X.jsonl`:
    so imported metadata corrects an item's texts, and the result depends on the set of files, not on their arrival."""
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: fetch the raw files first (`llmsrec download`)")
    files = sorted(file for file in folder.iterdir() if not file.name.startswith("."))
    if unsupported := [file.name for file in files if not SUFFIX.search(file.name)]:
        raise DataError(f"{folder} holds {unsupported}; expected {FORMATS}")
    metadata = [file for file in files if is_metadata(file.name)]
    reviews = [file for file in files if file not in metadata]
    reviews.sort(key=lambda file: (part_of(file) or 0, file))
    if not reviews:
        raise DataError(f"{folder} holds no review file; expected {FORMATS}")
    if len({part_of(file) is None for file in reviews}) > 1:
        raise DataError(
            f"{folder} mixes a ready split (.train.csv ...) with unsplit files: keep one kind"
        )
    return reviews, metadata


def is_metadata(name: str) -> bool:
    """Whether a file name says that the file holds item texts."""
    return name.lower().startswith("meta_")


def is_ready_split(name: str) -> bool:
    """Whether a file name says train, valid or test."""
    return _READY_SPLIT.search(name) is not None


def part_of(file: Path) -> int | None:
    """0, 1 or 2 for train, valid or test of a ready split, else None."""
    match = _READY_SPLIT.search(file.name)
    return PARTS.index(match[1].lower()) if match else None


def parse_file(file: Path, dates: DateRange) -> Iterator[ParsedBlock]:
    """The blocks of a file, by its name: reviews or item texts, CSV or JSON lines; DataError for another format."""
    head = read_head(file).removeprefix(BOM).lstrip()
    for start, (what, remedy) in _OTHER_FORMATS.items():
        if head.startswith(start):
            raise DataError(f"{file} {what}: {remedy}; expected {FORMATS}")
    if b"\0" in head[:2]:
        raise DataError(f"{file} is UTF-16 or no text: save it as UTF-8; expected {FORMATS}")
    suffix = SUFFIX.search(file.name)
    assert suffix is not None, "raw_files and the inbox take no other name"
    is_csv = suffix[1].lower() in ("csv", "tsv")
    if is_metadata(file.name):
        return parse_csv_items(file) if is_csv else parse_metadata(file)
    return parse_csv_reviews(file, dates) if is_csv else parse_reviews(file, dates)
