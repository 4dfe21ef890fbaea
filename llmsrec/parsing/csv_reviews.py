"""Interactions from CSV: a header (user_id, parent_asin, timestamp[, rating]), item texts in it or not.

`X.train.csv`, `X.valid.csv` and `X.test.csv` carry a ready split, as the 5-core files of Amazon Reviews 2023 do.
"""

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from llmsrec.core.errors import DataError
from llmsrec.parsing.line_reader import read_blocks
from llmsrec.parsing.metadata import clean
from llmsrec.parsing.reviews import (
    REJECTS,
    ROWS,
    TEXT_KEPT,
    Parsed,
    Period,
    Texts,
    check_record,
    parse_reviews,
    whole,
)

NAMES = {"user": "user_id", "item": "parent_asin", "item_id": "parent_asin"}
# int() and float() read more, such as 1_000, and digits of every script.
WHOLE = re.compile(r"[-+]?[0-9]+")
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
TEXTS = ("title", "description", "brand", "category")


def parse_file(file: Path, period: Period) -> Iterator[Parsed]:
    """A review file, by what its name says it is."""
    return (parse_csv if ".csv" in file.suffixes else parse_reviews)(file, period)


def parse_csv(file: Path, period: Period) -> Iterator[Parsed]:
    """The rows of a file, block by block, with the item texts found beside them."""
    header: list[str] | None = None
    for block in read_blocks(file):
        rows: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        texts: dict[str, Texts] = {}
        blank = 0
        for row in range(len(block)):
            line, number = block.line(row), block.first + row
            if header is None:
                header, blank = _header(file, line), blank + 1
                continue
            if not line.strip():
                blank += 1
                continue
            record, reason = _record(line, header)
            checked, reason = check_record(record, period) if record else (None, reason)
            if checked is None:
                text = line.decode("utf-8", "replace")[:TEXT_KEPT]
                rejects.append({"file": file.name, "line": number, "reason": reason, "text": text})
                continue
            rows.append({**checked, "line": number})
            if record and record.get("title"):
                found = {name: clean(record.get(name)) for name in TEXTS}
                texts.setdefault(checked["item_id"], found)
        yield Parsed(
            pa.Table.from_pylist(rows, ROWS),
            pa.Table.from_pylist(rejects, REJECTS),
            len(block),
            blank,
            texts,
        )


def _header(file: Path, line: bytes) -> list[str]:
    try:
        columns = next(csv.reader([line.decode("utf-8-sig")]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}, line 1: the header cannot be read ({error})") from None
    names = [NAMES.get(name, name) for name in columns]
    for needed in ("user_id", "parent_asin", "timestamp"):
        if needed not in names:
            raise DataError(
                f"{file}, line 1: the header {names} has no column '{needed}' "
                "(needed: user_id, parent_asin, timestamp)"
            )
    return names


def _record(line: bytes, header: list[str]) -> tuple[dict[str, Any] | None, str | None]:
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
    if time and not WHOLE.fullmatch(time):
        return None, "mistyped timestamp"
    record["timestamp"] = whole(time) if time else None
    record["rating"] = float(rating) if DECIMAL.fullmatch(rating) else None
    return record, None
