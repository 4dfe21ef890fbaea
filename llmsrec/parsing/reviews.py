"""Raw review lines -> typed rows and rejects (specification 1).

Every line becomes either a row, or a reject with its file, line number and reason. `parse_line` defines the rules.
`parse_block` applies them to a whole block with Arrow's JSON reader, which is faster. Lines that do not look like an
object go to `parse_line`. If Arrow fails on the others, they are halved until few lines are left for `parse_line`.
In unused fields Arrow accepts two things that Python's reader rejects: `Inf` or `-NaN`, and unbounded nesting.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from jaxtyping import Int

from llmsrec.parsing.line_reader import LineBlock, ParsedBlock, parse_lines, read_blocks

REVIEW_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),
        ("rating", pa.float64()),
        ("line", pa.int64()),
    ]
)
MAX_DIGITS = 4000  # Python converts no integer of more than 4,300
MAX_LINE_BY_LINE = 64  # lines that are parsed one by one rather than halved again
WORKERS = max(1, min(4, (os.cpu_count() or 2)))

_PARSE = pa.json.ParseOptions(
    explicit_schema=pa.schema(
        [
            ("user_id", pa.string()),
            ("parent_asin", pa.string()),
            ("asin", pa.string()),
            ("timestamp", pa.int64()),
            ("rating", pa.float64()),
        ]
    ),
    unexpected_field_behavior="ignore",
)


@dataclass(frozen=True)
class DateRange:
    """A timestamp is accepted if it lies in [earliest, latest)."""

    earliest: date
    latest: date

    @property
    def milliseconds(self) -> tuple[int, int]:
        low, high = (
            datetime(day.year, day.month, day.day, tzinfo=UTC)
            for day in (self.earliest, self.latest)
        )
        return int(low.timestamp() * 1000), int(high.timestamp() * 1000)


def parse_reviews(file: Path, dates: DateRange) -> Iterator[ParsedBlock]:
    """The blocks of a file in order, parsed on `WORKERS` threads with at most three blocks in memory."""
    blocks = read_blocks(file)
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(parse_block, block, file.name, dates) for block in islice(blocks, 3)]
        while futures:
            parsed = futures.pop(0).result()
            for block in islice(blocks, 1):
                futures.append(pool.submit(parse_block, block, file.name, dates))
            yield parsed


def parse_block(block: LineBlock, file: str, dates: DateRange) -> ParsedBlock:
    """The rows and rejects of a block; `file` is the name for rejects."""
    tables, rest = _parse_with_arrow(block, dates)
    parsed = parse_lines(block, rest, file, partial(parse_line, dates=dates), REVIEW_SCHEMA)
    return replace(parsed, rows=pa.concat_tables([*tables, parsed.rows]))


def parse_line(line: bytes, dates: DateRange) -> tuple[dict[str, Any] | None, str | None]:
    """(row, None) or (None, reason)."""
    record, reason = parse_object(line)
    return (None, reason) if record is None else check_record(record, dates)


def check_record(
    record: dict[str, Any], dates: DateRange
) -> tuple[dict[str, Any] | None, str | None]:
    """(row, None) or (None, reason): the rules for user, item, time and rating."""
    user, item = record.get("user_id"), record.get("parent_asin")
    item = record.get("asin") if item is None else item
    for name, value in (("user_id", user), ("parent_asin", item)):
        if value is None or value == "":
            return None, f"missing {name}"
        if not isinstance(value, str) or not is_valid_unicode(value):
            return None, f"mistyped {name}"
    time = record.get("timestamp")
    if time is None:
        return None, "missing timestamp"
    if not isinstance(time, int) or isinstance(time, bool):
        return None, "mistyped timestamp"
    low, high = dates.milliseconds
    if not low <= time < high:
        return None, "absurd timestamp"
    rating = _finite(record.get("rating"))
    return {"user_id": user, "item_id": item, "timestamp": time, "rating": rating}, None


def parse_integer(digits: str) -> int:
    """An integer; one too long for Python is truncated, which is still too large for any valid field."""
    return int(digits[:MAX_DIGITS])


_JSON = json.JSONDecoder(parse_int=parse_integer)


def parse_object(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """(object, None) or (None, reason)."""
    try:
        record = _JSON.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    except (ValueError, RecursionError):
        return None, "broken JSON"
    if not isinstance(record, dict):
        return None, "not an object"
    return record, None


def is_valid_unicode(value: str) -> bool:
    """Whether UTF-8 can encode a string; it cannot encode lone surrogates, which JSON may contain."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _parse_with_arrow(block: LineBlock, dates: DateRange) -> tuple[list[pa.Table], list[int]]:
    """The tables that Arrow could read, and the lines that `parse_line` must parse."""
    text = np.frombuffer(block.text, dtype=np.uint8)
    braced = (text[block.starts[:-1]] == ord("{")) & (text[block.starts[1:] - 2] == ord("}"))
    try:
        block.text.decode("utf-8")
    except UnicodeDecodeError:
        braced[:] = False
    tables: list[pa.Table] = []
    rest = np.flatnonzero(~braced).tolist()
    pending = [np.flatnonzero(braced)]
    while pending:
        rows = pending.pop()
        parsed = _read_json(block, rows, dates) if len(rows) else None
        if parsed is not None:
            tables.append(parsed[0])
            rest.extend(parsed[1])
        elif len(rows) <= MAX_LINE_BY_LINE:
            rest.extend(rows.tolist())
        else:
            pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return tables, sorted(rest)


def _read_json(
    block: LineBlock, rows: Int[np.ndarray, "n"], dates: DateRange
) -> tuple[pa.Table, list[int]] | None:
    """The valid rows and the numbers of the other lines; None if Arrow fails or does not find one object per line."""
    try:
        table = pa.json.read_json(
            pa.BufferReader(block.take(rows)),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=1 << 30),
            parse_options=_PARSE,
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != len(rows):
        return None
    low, high = dates.milliseconds
    user, time, rating = table["user_id"], table["timestamp"], table["rating"]
    item = pc.coalesce(table["parent_asin"], table["asin"])
    valid = pc.and_(
        pc.and_(pc.not_equal(user, ""), pc.not_equal(item, "")),
        pc.and_(pc.greater_equal(time, low), pc.less(time, high)),
    ).fill_null(False)
    finite = pc.is_finite(rating).fill_null(True)  # Arrow also reads `Inf`, which is not JSON
    valid = pc.and_(valid, finite)
    lines = pa.array(block.first + rows)
    reviews = pa.table([user, item, time, rating, lines], schema=REVIEW_SCHEMA)
    if pc.all(valid).as_py():
        return reviews, []
    return reviews.filter(valid), rows[~valid.to_numpy()].tolist()


def _finite(rating: Any) -> float | None:
    """No model uses ratings, so an invalid one (NaN included) does not invalidate the interaction."""
    if isinstance(rating, bool) or not isinstance(rating, int | float):
        return None
    return float(rating) if abs(rating) <= sys.float_info.max else None
