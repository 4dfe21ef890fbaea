"""Reviews and item texts from CSV with a header (decision 19).

`X.train.csv`, `X.valid.csv` and `X.test.csv` hold a ready split, as the 5-core files of Amazon Reviews 2023 do.
Arrow reads the records that are quoted as RFC 4180 says; Python's `csv` reads the others one by one and rejects a
broken line with its number, after which the next line starts anew.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from llmsrec.parsing.csv_records import KNOWN, Header, Needed, is_regular, open_csv, parse_records
from llmsrec.parsing.line_reader import (
    ItemTexts,
    LineBlock,
    Parsed,
    ParsedBlock,
    Rows,
    collect,
    in_threads,
    parse_in_bulk,
)
from llmsrec.parsing.metadata import ITEM_SCHEMA, TEXT_NAMES, item_texts
from llmsrec.parsing.reviews import (
    FIELD_TYPES,
    ITEM_NAMES,
    RATING_NAMES,
    REVIEW_SCHEMA,
    SECONDS,
    USER_NAMES,
    DateRange,
    check_record,
    parse_integer,
    valid_reviews,
)

# int() and float() accept more: 1_000, and digits of every script.
INTEGER = re.compile(r"[-+]?[0-9]+")
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
CODES = pa.dictionary(pa.int32(), pa.string())
NO_TIME = "-9000000000000000"  # in place of a text that is no number: outside of any period
TIME_NAMES = ("timestamp", SECONDS)
REVIEW_COLUMNS: Needed = {"user_id": USER_NAMES, "parent_asin": ITEM_NAMES, "timestamp": TIME_NAMES}
ITEM_COLUMNS: Needed = {"parent_asin": ITEM_NAMES, "title": ("title",)}


def parse_csv_reviews(file: Path, dates: DateRange) -> Iterator[ParsedBlock]:
    """The rows of a file, block by block, with the texts of items in their first row with a title."""
    header, blocks = open_csv(file, REVIEW_COLUMNS)
    texts = [name for name in TEXT_NAMES if name in header.names and "title" in header.names]
    schema = pa.schema([*REVIEW_SCHEMA, *((name, pa.string()) for name in texts)])
    parse = partial(_parse_reviews, file=file.name, header=header, schema=schema, dates=dates)
    known: set[str] = set()
    for block in in_threads(parse, blocks):
        first = _first_texts(block.rows, texts, known) if texts else {}
        yield replace(block, rows=block.rows.select(REVIEW_SCHEMA.names), texts=first)


def parse_csv_items(file: Path) -> Iterator[ParsedBlock]:
    """The items of a file, block by block."""
    header, blocks = open_csv(file, ITEM_COLUMNS)
    for block in blocks:
        yield collect(
            parse_records(block, range(len(block)), header, item_texts), file.name, ITEM_SCHEMA
        )


def _parse_reviews(
    block: LineBlock, *, file: str, header: Header, schema: pa.Schema, dates: DateRange
) -> ParsedBlock:
    """Rows with the columns of `schema`, and rejects."""
    regular = is_regular(block, header.separator)
    read = partial(_read_csv, header=header, schema=schema, dates=dates)
    tables, rest = parse_in_bulk(block, np.flatnonzero(regular), read)
    rest = sorted([*np.flatnonzero(~regular).tolist(), *rest])
    rule = partial(_review, dates=dates)
    parsed = collect(parse_records(block, rest, header, rule), file, schema)
    return replace(parsed, rows=pa.concat_tables([*tables, parsed.rows]))


def _read_csv(
    block: LineBlock, rows: Rows, *, header: Header, schema: pa.Schema, dates: DateRange
) -> tuple[pa.Table, Rows] | None:
    """The valid rows with the columns of `schema`, and the other rows; None if Arrow finds other records."""
    wrong: list[int] = []  # records with too few or too many values

    def skip(row: pa.csv.InvalidRow) -> str:
        wrong.append(row.number - 1)
        return "skip"

    names = [name if name in KNOWN.values() else str(n) for n, name in enumerate(header.names)]
    wanted = [name for name in names if name in FIELD_TYPES or name in schema.names]
    types = {**dict.fromkeys(wanted, pa.string()), **dict.fromkeys(RATING_NAMES, CODES)}
    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block.take(rows)),
            pa.csv.ReadOptions(use_threads=False, column_names=names, block_size=1 << 30),
            pa.csv.ParseOptions(
                delimiter=header.separator, newlines_in_values=True, invalid_row_handler=skip
            ),
            pa.csv.ConvertOptions(
                check_utf8=False,
                column_types=types,
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows + len(wrong) != len(rows):
        return None
    counted = np.delete(rows, wrong)
    reviews, invalid = valid_reviews(_typed(table), block.numbers[counted], counted, dates)
    return reviews.select(schema.names), np.concatenate([invalid, rows[wrong]])


def _typed(table: pa.Table) -> pa.Table:
    """Times as integers and ratings as numbers, null if they are none."""
    columns = dict(zip(table.column_names, table.columns, strict=True))
    for name in set(TIME_NAMES) & columns.keys():
        text = columns[name]
        plain = pc.and_(pc.ascii_is_decimal(text), pc.less(pc.binary_length(text), 19))
        columns[name] = pc.cast(pc.if_else(plain, text, NO_TIME), pa.int64())
    for name in set(RATING_NAMES) & columns.keys():
        codes = columns[name].combine_chunks()
        values = [_rating(text) for text in codes.dictionary.to_pylist()]
        columns[name] = pa.array(values, pa.float64()).take(codes.indices)
    for name, kind in (("timestamp", pa.int64()), ("rating", pa.float64())):
        columns.setdefault(name, pa.nulls(len(table), kind))
    return pa.table(columns)


def _rating(text: str) -> float | None:
    rating = float(text) if DECIMAL.fullmatch(text.strip()) else math.inf
    return rating if math.isfinite(rating) else None


def _review(record: dict[str, Any], dates: DateRange) -> Parsed:
    """A row with the texts of its item, as they stand; or the reason against it."""
    for name in TIME_NAMES:
        text = record.pop(name, "").strip()
        if text:
            record[name] = parse_integer(text) if INTEGER.fullmatch(text) else text
    ratings = {name: _rating(record[name]) for name in RATING_NAMES if name in record}
    row, reason = check_record({**record, **ratings}, dates)
    return (None, reason) if row is None else ({**record, **row}, None)


def _first_texts(rows: pa.Table, names: list[str], known: set[str]) -> dict[str, ItemTexts]:
    """The texts of items that are not `known` yet, in their first row with a title; they are known from then on."""
    ids = rows["item_id"].combine_chunks().dictionary_encode()
    is_new = np.array([item not in known for item in ids.dictionary.to_pylist()], dtype=bool)
    codes, lines = ids.indices.to_numpy(), rows["line"].to_numpy()
    titled = pc.not_equal(pc.utf8_trim_whitespace(rows["title"]), "").fill_null(False).to_numpy()
    chosen = np.flatnonzero(titled & is_new[codes])
    chosen = chosen[np.argsort(lines[chosen], kind="stable")]
    first = rows.take(chosen[np.unique(codes[chosen], return_index=True)[1]])
    texts: dict[str, ItemTexts] = {}
    for record in first.select(["item_id", *names]).to_pylist():
        row, _ = item_texts(record)
        assert row is not None, "the row has an id"
        texts[row.pop("item_id")] = row
    known.update(texts)
    return texts
