"""Reviews and item texts from CSV with a header (decision 19).

`X.train.csv`, `X.valid.csv` and `X.test.csv` hold a ready split, as the 5-core files of Amazon Reviews 2023 do.
A record may have several lines, where a quoted value contains line ends. `read_records` joins them by counting quotes.
Arrow reads the records that are quoted as RFC 4180 says; Python's `csv` reads the others one by one and rejects a
broken line with its number, after which the next line starts anew.
"""

import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from jaxtyping import Bool, Int

from llmsrec.core.errors import DataError
from llmsrec.parsing.line_reader import (
    ItemTexts,
    LineBlock,
    Parsed,
    ParsedBlock,
    Rows,
    collect,
    line_ends,
    parse_in_bulk,
    read_blocks,
)
from llmsrec.parsing.metadata import BRAND_NAMES, CATEGORY_NAMES, ITEM_SCHEMA, item_texts
from llmsrec.parsing.reviews import (
    FIELD_TYPES,
    ITEM_NAMES,
    RATING_NAMES,
    REVIEW_SCHEMA,
    SECONDS,
    USER_NAMES,
    DateRange,
    check_record,
    in_threads,
    parse_integer,
    valid_reviews,
)

SEPARATORS = ",;\t|"
QUOTE, CR, LF = ord('"'), ord("\r"), ord("\n")
MAX_RECORD_BYTES = 1 << 17  # of a record of several lines; and the limit of `csv` for a value
# int() and float() accept more: 1_000, and digits of every script.
INTEGER = re.compile(r"[-+]?[0-9]+")
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
CODES = pa.dictionary(pa.int32(), pa.string())
NO_TIME = "-9000000000000000"  # in place of a text that is no number: outside of any period
TIME_NAMES = ("timestamp", SECONDS)
TEXT_NAMES = ("title", "description", *BRAND_NAMES, *CATEGORY_NAMES)
KNOWN = {name.lower(): name for name in (*FIELD_TYPES, *TEXT_NAMES)}
Needed = dict[str, tuple[str, ...]]  # column -> its names
REVIEW_COLUMNS: Needed = {"user_id": USER_NAMES, "parent_asin": ITEM_NAMES, "timestamp": TIME_NAMES}
ITEM_COLUMNS: Needed = {"parent_asin": ITEM_NAMES, "title": ("title",)}


@dataclass(frozen=True)
class Header:
    """The separator of a file and the names of its columns; known ones in their usual spelling."""

    separator: str
    names: list[str]


def parse_csv_reviews(file: Path, dates: DateRange) -> Iterator[ParsedBlock]:
    """The rows of a file, block by block, with the texts of items in their first row with a title."""
    header, blocks = _open(file, REVIEW_COLUMNS)
    texts = [name for name in TEXT_NAMES if name in header.names and "title" in header.names]
    schema = pa.schema([*REVIEW_SCHEMA, *((name, pa.string()) for name in texts)])
    parse = partial(_parse_reviews, file=file.name, header=header, schema=schema, dates=dates)
    known: set[str] = set()
    for block in in_threads(parse, blocks):
        first = _first_texts(block.rows, texts, known) if texts else {}
        yield replace(block, rows=block.rows.select(REVIEW_SCHEMA.names), texts=first)


def parse_csv_items(file: Path) -> Iterator[ParsedBlock]:
    """The items of a file, block by block."""
    header, blocks = _open(file, ITEM_COLUMNS)
    for block in blocks:
        yield collect(
            _results(block, range(len(block)), header, item_texts), file.name, ITEM_SCHEMA
        )


def read_records(file: Path) -> Iterator[LineBlock]:
    """The records of a file, each with the number of its first line.

    A quote that is not closed within `MAX_RECORD_BYTES` opens nothing: its line is a record of its own."""
    rest, number = b"", 1
    for block in read_blocks(file):
        number = number if rest else int(block.numbers[0])
        records, rest = _join(rest + block.text, number, final=False)
        number += records.text.count(b"\n")
        if len(records):
            yield records
    if rest:
        yield _join(rest, number, final=True)[0]


def _join(text: bytes, first: int, *, final: bool) -> tuple[LineBlock, bytes]:
    """The complete records of a text, and the rest, which may go on in the next block unless this one is `final`."""
    is_quote = np.frombuffer(text, dtype=np.uint8) == QUOTE
    starts = np.concatenate([[0], line_ends(text)])
    is_start, end = np.ones(len(starts) - 1, dtype=bool), len(starts) - 1
    lines: list[int] = []  # those that open or close a quote
    if b'"' in text:
        odd = np.bitwise_xor.reduceat(is_quote.view(np.uint8), starts[:-1])
        lines = np.flatnonzero(odd).tolist()[::-1]
    while lines:
        line = lines.pop()
        if lines and starts[lines[-1] + 1] - starts[line] <= MAX_RECORD_BYTES:
            is_start[line + 1 : lines.pop() + 1] = False
        elif not lines and not final and len(text) - starts[line] <= MAX_RECORD_BYTES:
            end = line
    chosen, cut = np.flatnonzero(is_start[:end]), starts[end]
    return LineBlock(first + chosen, text[:cut], np.append(starts[chosen], cut)), text[cut:]


def _open(file: Path, needed: Needed) -> tuple[Header, Iterator[LineBlock]]:
    """The header and the blocks of records after it."""
    blocks = read_records(file)
    for block in blocks:
        for row in range(len(block)):
            if line := block.line(row).strip():
                header = _header(f"{file}, line {block.numbers[row]}", line, needed)
                bounds = block.starts[row + 1 :]
                rest = LineBlock(
                    block.numbers[row + 1 :], block.text[bounds[0] :], bounds - bounds[0]
                )
                return header, chain([rest] if len(rest) else [], blocks)
    raise DataError(f"{file}, line 1: the header is missing: expected {_expected(needed)}")


def _header(where: str, line: bytes, needed: Needed) -> Header:
    found: list[Header] = []
    for separator in SEPARATORS:
        try:
            columns = next(csv.reader([line.decode()], delimiter=separator))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(
                f"{where}: the header cannot be read ({error}); expected UTF-8"
            ) from None
        names = [KNOWN.get(name.strip().lower(), name.strip()) for name in columns]
        found.append(Header(separator, names))
    header = max(found, key=lambda header: (len(_missing(header, needed)) == 0, len(header.names)))
    if missing := _missing(header, needed):
        hint = "; a file of JSON lines is named .jsonl" if line.startswith(b"{") else ""
        raise DataError(
            f"{where}: the header {header.names} has no column '{missing[0]}' (expected {_expected(needed)}){hint}"
        )
    for name in {*KNOWN.values()}:
        if header.names.count(name) > 1:
            raise DataError(f"{where}: the header has two columns '{name}': rename or remove one")
    return header


def _missing(header: Header, needed: Needed) -> list[str]:
    return [column for column, names in needed.items() if not set(names) & set(header.names)]


def _expected(needed: Needed) -> str:
    columns = "; ".join(" or ".join(names) for names in needed.values())
    return f"one column each of: {columns}; separated by comma, semicolon, tab or |"


def _parse_reviews(
    block: LineBlock, *, file: str, header: Header, schema: pa.Schema, dates: DateRange
) -> ParsedBlock:
    """Rows with the columns of `schema`, and rejects."""
    is_regular = _is_regular(block, header.separator)
    read = partial(_read_csv, header=header, schema=schema, dates=dates)
    tables, rest = parse_in_bulk(block, np.flatnonzero(is_regular), read)
    rest = sorted([*np.flatnonzero(~is_regular).tolist(), *rest])
    rule = partial(_review, dates=dates)
    parsed = collect(_results(block, rest, header, rule), file, schema)
    return replace(parsed, rows=pa.concat_tables([*tables, parsed.rows]))


def _is_regular(block: LineBlock, separator: str) -> Bool[np.ndarray, "rows"]:
    """Whether `csv` and Arrow read the same in a record: its quotes enclose whole values, no byte is out of place."""
    text = np.frombuffer(block.text, dtype=np.uint8)
    regular = (np.diff(block.starts) <= MAX_RECORD_BYTES) & block.valid_utf8()
    regular &= text[block.starts[:-1]] > ord(" ")  # a blank record starts with white space
    if b"\0" in block.text:
        regular[block.rows_at(np.flatnonzero(text == 0))] = False
    if b"\r" in block.text:
        returns = np.flatnonzero(text == CR)
        regular[block.rows_at(returns[text[returns + 1] != LF])] = False
    if b'"' in block.text:
        regular &= _well_quoted(text, block.starts, separator)
    return regular


def _well_quoted(
    text: Int[np.ndarray, "bytes"], starts: Int[np.ndarray, "bounds"], separator: str
) -> Bool[np.ndarray, "rows"]:
    """Whether every quote of a record opens or closes a value, or is one of a pair inside."""
    quoted = text == QUOTE
    counts = np.add.reduceat(quoted, starts[:-1], dtype=np.int64)
    places, before = np.flatnonzero(quoted), np.cumsum(counts) - counts
    opens = (np.arange(len(places)) - np.repeat(before, counts)) % 2 == 0
    outside = np.zeros(256, dtype=bool)
    outside[[QUOTE, LF, CR, ord(separator)]] = True
    good = outside[np.where(opens, text[places - 1], text[(places + 1) % len(text)])]
    well = counts % 2 == 0
    well[np.repeat(np.arange(len(counts)), counts)[~good]] = False
    return well


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


def _results(
    block: LineBlock, rows: Iterable[int], header: Header, rule: Callable[[dict[str, Any]], Parsed]
) -> Iterator[tuple[int, bytes, dict[str, Any] | None, str | None]]:
    """Line number, text, and (row, None) or (None, reason) of some records, read one by one.

    Of a record that cannot be read, the first line is rejected and the next one starts a new record."""
    for row in rows:
        number, lines = int(block.numbers[row]), block.line(row).split(b"\n")
        while lines:
            record, reason, used = _record(lines, header) if lines[0].strip() else (None, None, 1)
            text = b"\n".join(lines[:used])
            if record is not None:
                yield number, text, *rule(record)
            elif reason is not None:
                yield number, text, None, reason
            number += used
            del lines[:used]


def _record(lines: list[bytes], header: Header) -> tuple[dict[str, Any] | None, str | None, int]:
    """(record, None) or (None, reason), and the number of lines that it takes; empty values are left out."""
    if b"\0" in lines[0]:
        return None, "NUL byte", 1
    texts = (f"{line.decode()}\n" for line in lines)
    reader = csv.reader(texts, delimiter=header.separator, strict=True)
    try:
        values = next(reader)
    except UnicodeDecodeError:
        return None, "invalid UTF-8", 1
    except csv.Error:
        return None, "broken CSV", 1
    if len(values) != len(header.names):
        return None, "wrong number of columns", 1
    pairs = zip(header.names, values, strict=True)
    return {name: value for name, value in pairs if value}, None, reader.line_num


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
    known |= texts.keys()
    return texts
