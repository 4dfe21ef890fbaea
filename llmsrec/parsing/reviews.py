"""Raw review lines -> typed rows and rejects (specification 1).

Every line becomes either a row, or a reject with its file, line number and reason. `parse_line` defines the rules.
`parse_block` applies them to a whole block with Arrow's JSON reader, which is faster. Lines that do not look like an
object go to `parse_line`. If Arrow fails on the others, they are halved until few lines are left for `parse_line`.
In unused fields Arrow accepts two things that Python's reader rejects: `Inf` or `-NaN`, and unbounded nesting.
"""

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from llmsrec.parsing.line_reader import (
    LineBlock,
    Parsed,
    ParsedBlock,
    Rows,
    in_threads,
    parse_in_bulk,
    parse_lines,
    read_blocks,
)
from llmsrec.parsing.time_units import unit_of

REVIEW_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),
        ("rating", pa.float64()),
        ("line", pa.int64()),
    ]
)
# Names of a field, in JSON, CSV and metadata alike: of Amazon Reviews 2023, of 2014 and 2018, then common short ones.
# The first that is not null counts.
USER_NAMES = ("user_id", "reviewerID", "user")
ITEM_NAMES = ("parent_asin", "asin", "item_id", "item")
RATING_NAMES = ("rating", "overall")
SECONDS = "unixReviewTime"  # the releases of 2014 and 2018 have the time in seconds under this name
FIELD_TYPES = {
    **dict.fromkeys((*USER_NAMES, *ITEM_NAMES), pa.string()),
    **dict.fromkeys(("timestamp", SECONDS), pa.int64()),
    **dict.fromkeys(RATING_NAMES, pa.float64()),
}
USUAL_FIELDS = {"user_id", "parent_asin", "asin", "timestamp", "rating"}
HEAD_BYTES = 1 << 14  # of a block, searched for its field names
MAX_DIGITS = 4000  # Python converts no integer of more than 4,300


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
    """The blocks of a file in order."""
    return in_threads(partial(parse_block, file=file.name, dates=dates), read_blocks(file))


def parse_block(block: LineBlock, file: str, dates: DateRange) -> ParsedBlock:
    """The rows and rejects of a block; `file` is the name for rejects."""
    text = np.frombuffer(block.text, dtype=np.uint8)
    braced = (text[block.starts[:-1]] == ord("{")) & (text[block.starts[1:] - 2] == ord("}"))
    braced &= block.valid_utf8()
    head = block.text[:HEAD_BYTES]
    names = [name for name in FIELD_TYPES if name in USUAL_FIELDS or f'"{name}"'.encode() in head]
    read = partial(_read_json, names=names, dates=dates)
    tables, rest = parse_in_bulk(block, np.flatnonzero(braced), read)
    rest = sorted([*np.flatnonzero(~braced).tolist(), *rest])
    parsed = parse_lines(block, rest, file, partial(parse_line, dates=dates), REVIEW_SCHEMA)
    return replace(parsed, rows=pa.concat_tables([*tables, parsed.rows]))


def parse_line(line: bytes, dates: DateRange) -> Parsed:
    """(row, None) or (None, reason)."""
    record, reason = parse_object(line)
    return (None, reason) if record is None else check_record(record, dates)


def check_record(record: dict[str, Any], dates: DateRange) -> Parsed:
    """(row, None) or (None, reason): the rules for user, item, time and rating."""
    user, item = first_of(record, USER_NAMES), first_of(record, ITEM_NAMES)
    reason = id_problem("user_id", user) or id_problem("parent_asin", item)
    if reason:
        return None, reason
    time, factor = record.get("timestamp"), 1
    if time is None:
        time, factor = record.get(SECONDS), 1000
    if time is None:
        return None, "missing timestamp"
    if not isinstance(time, int) or isinstance(time, bool):
        return None, "mistyped timestamp"
    low, high = dates.milliseconds
    if not low <= time * factor < high:
        unit = unit_of(time, low, high) if factor == 1 else None
        return None, f"timestamp in {unit}" if unit else "absurd timestamp"
    rating = _finite(first_of(record, RATING_NAMES))
    return {"user_id": user, "item_id": item, "timestamp": time * factor, "rating": rating}, None


def first_of(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    """The first value under these names that is not null."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def id_problem(name: str, value: Any) -> str | None:
    """Why a value cannot be an id; None if it can."""
    if value is None or value == "":
        return f"missing {name}"
    if not isinstance(value, str) or not is_valid_unicode(value):
        return f"mistyped {name}"
    return None


def parse_integer(digits: str) -> int:
    """An integer; one too long for Python is truncated, which is still too large for any valid field."""
    return int(digits[:MAX_DIGITS])


_JSON = json.JSONDecoder(parse_int=parse_integer)


def parse_object(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """(object, None) or (None, reason); a dict in Python's notation is an object too (the item texts of 2014)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    try:
        record = _JSON.decode(text)
    except (ValueError, RecursionError):
        try:
            # literals only, no code
            record = ast.literal_eval(text) if text.startswith("{'") else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            record = None
        if record is None:
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


def _read_json(
    block: LineBlock, rows: Rows, *, names: list[str], dates: DateRange
) -> tuple[pa.Table, Rows] | None:
    """The valid rows and the numbers of the other lines; None if Arrow fails or does not find one object per line."""
    fields = pa.schema([(name, FIELD_TYPES[name]) for name in names])
    try:
        table = pa.json.read_json(
            pa.BufferReader(block.take(rows)),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=1 << 30),
            parse_options=pa.json.ParseOptions(
                explicit_schema=fields, unexpected_field_behavior="ignore"
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows != len(rows):
        return None
    return valid_reviews(table, block.numbers[rows], rows, dates)


def valid_reviews(
    table: pa.Table, numbers: Rows, rows: Rows, dates: DateRange
) -> tuple[pa.Table, Rows]:
    """The rows that follow the rules, and those of `rows` that do not."""
    user, item, rating = (
        pc.coalesce(*(table[name] for name in names if name in table.column_names))
        for names in (USER_NAMES, ITEM_NAMES, RATING_NAMES)
    )
    low, high = dates.milliseconds
    time = table["timestamp"]
    if SECONDS in table.column_names:
        seconds = table[SECONDS]
        plausible = pc.less(pc.abs(seconds), 1 << 50)  # so that the product does not overflow
        time = pc.coalesce(time, pc.if_else(plausible, pc.multiply(seconds, 1000), None))
    valid = pc.and_(
        pc.and_(pc.not_equal(user, ""), pc.not_equal(item, "")),
        pc.and_(pc.greater_equal(time, low), pc.less(time, high)),
    ).fill_null(False)
    finite = pc.is_finite(rating).fill_null(True)  # Arrow also reads `Inf`, which is not JSON
    valid = pc.and_(valid, finite)
    columns = [user, item, time, rating, pa.array(numbers)]
    reviews = pa.table(columns, schema=REVIEW_SCHEMA)
    for name in table.column_names:  # item texts
        if name not in FIELD_TYPES:
            reviews = reviews.append_column(name, table[name])
    if pc.all(valid).as_py():
        return reviews, rows[:0]
    return reviews.filter(valid), rows[~valid.to_numpy()]


def _finite(rating: Any) -> float | None:
    """No model uses ratings, so an invalid one (NaN included) does not invalidate the interaction."""
    if isinstance(rating, bool) or not isinstance(rating, int | float):
        return None
    return float(rating) if abs(rating) <= sys.float_info.max else None
