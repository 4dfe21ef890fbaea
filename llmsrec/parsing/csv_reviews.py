"""Interactions from CSV with a header (user_id, parent_asin, timestamp[, rating]) and optional item texts.

`X.train.csv`, `X.valid.csv` and `X.test.csv` hold a ready split, as the 5-core files of Amazon Reviews 2023 do.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmsrec.core.errors import DataError
from llmsrec.parsing.line_reader import ItemTexts, ParsedBlock, parse_lines, read_blocks
from llmsrec.parsing.metadata import clean_text
from llmsrec.parsing.reviews import (
    REVIEW_SCHEMA,
    DateRange,
    check_record,
    parse_integer,
    parse_reviews,
)

COLUMN_ALIASES = {"user": "user_id", "item": "parent_asin", "item_id": "parent_asin"}
# int() and float() accept more: 1_000, and digits of every script.
INTEGER = re.compile(r"[-+]?[0-9]+")
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
TEXT_COLUMNS = ("title", "description", "brand", "category")


def parse_file(file: Path, dates: DateRange) -> Iterator[ParsedBlock]:
    """The blocks of a review file, CSV or JSON lines by its name."""
    return (parse_csv if ".csv" in file.suffixes else parse_reviews)(file, dates)


def parse_csv(file: Path, dates: DateRange) -> Iterator[ParsedBlock]:
    """The rows of a file, block by block, with their item texts; DataError if the header is invalid."""
    header: list[str] = []
    texts: dict[str, ItemTexts] = {}

    def parse(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
        record, reason = _record(line, header)
        if record is None:
            return None, reason
        row, reason = check_record(record, dates)
        if row is not None and record.get("title"):
            item_texts = {name: clean_text(record.get(name)) for name in TEXT_COLUMNS}
            texts.setdefault(row["item_id"], item_texts)
        return row, reason

    for block in read_blocks(file):
        has_header = block.first == 1
        if has_header:
            header = _header(file, block.line(0))
        texts = {}
        parsed = parse_lines(block, range(has_header, len(block)), file.name, parse, REVIEW_SCHEMA)
        yield replace(parsed, num_blank=parsed.num_blank + has_header, texts=texts)


def _header(file: Path, line: bytes) -> list[str]:
    try:
        columns = next(csv.reader([line.decode("utf-8-sig")]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}, line 1: the header cannot be read ({error})") from None
    names = [COLUMN_ALIASES.get(name, name) for name in columns]
    for required in ("user_id", "parent_asin", "timestamp"):
        if required not in names:
            raise DataError(
                f"{file}, line 1: the header {names} has no column '{required}' "
                "(needed: user_id, parent_asin, timestamp)"
            )
    return names


def _record(line: bytes, header: list[str]) -> tuple[dict[str, Any] | None, str | None]:
    """(record, None) or (None, reason)."""
    try:
        values = next(csv.reader([line.decode("utf-8")], strict=True))
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    except csv.Error:
        return None, "broken CSV"
    if len(values) != len(header):
        return None, "wrong number of columns"
    record: dict[str, Any] = dict(zip(header, values, strict=True))
    time, rating = (record.get(name, "").strip() for name in ("timestamp", "rating"))
    if time and not INTEGER.fullmatch(time):
        return None, "mistyped timestamp"
    record["timestamp"] = parse_integer(time) if time else None
    record["rating"] = float(rating) if DECIMAL.fullmatch(rating) else None
    return record, None
