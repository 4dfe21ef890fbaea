"""Raw review lines -> typed rows and rejects (SPEC 1).

Every line ends in exactly one place: a row, or a reject with its file, line and reason. `parse_line` states the rules.
`parse_block` does the same for a whole block with Arrow's JSON reader. Lines that are no object at first sight go to
`parse_line`; where that reader still trips, halves of the block, and halves of these, until few lines are left for it.
In fields that nobody reads Arrow lets two oddities pass that Python's reader rejects: `Inf` or `-NaN`, and nesting
without end.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from jaxtyping import Int

from llmsrec.parsing.line_reader import Block, read_blocks

Texts = dict[str, str | None]  # of one item, by column
ROWS = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("timestamp", pa.int64()),
        ("rating", pa.float64()),
        ("line", pa.int64()),
    ]
)
REJECTS = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())]
)
LARGEST = sys.float_info.max
MANY_DIGITS = 4000  # Python converts no whole number of more than 4,300
TEXT_KEPT = 500  # characters of a rejected line
FEW = 64  # lines that are parsed one by one rather than halved again
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
class Period:
    """A time outside [earliest, latest) is absurd."""

    earliest: date
    latest: date

    @property
    def milliseconds(self) -> tuple[int, int]:
        low, high = (
            datetime(day.year, day.month, day.day, tzinfo=UTC)
            for day in (self.earliest, self.latest)
        )
        return int(low.timestamp() * 1000), int(high.timestamp() * 1000)


@dataclass(frozen=True)
class Parsed:
    """`num_lines` = rows + rejects + blank lines; `texts` of items that stood beside the rows, the first of each."""

    rows: pa.Table
    rejects: pa.Table
    num_lines: int
    num_blank: int
    texts: dict[str, Texts] = field(default_factory=dict)


def parse_reviews(file: Path, period: Period) -> Iterator[Parsed]:
    """The blocks of a file in order, parsed on `WORKERS` threads; a few blocks are in flight."""
    blocks = read_blocks(file)
    with ThreadPoolExecutor(WORKERS) as pool:
        flight = [pool.submit(parse_block, block, file.name, period) for block in islice(blocks, 3)]
        while flight:
            done = flight.pop(0).result()
            for block in islice(blocks, 1):
                flight.append(pool.submit(parse_block, block, file.name, period))
            yield done


def parse_block(block: Block, file: str, period: Period) -> Parsed:
    fast, slow = _split_off(block, period)
    rows: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    blank = 0
    for row in slow:
        line = block.line(row)
        if not line.strip():
            blank += 1
            continue
        record, reason = parse_line(line, period)
        if record is not None:
            rows.append({**record, "line": block.first + row})
        else:
            text = line.decode("utf-8", "replace")[:TEXT_KEPT]
            rejects.append(
                {"file": file, "line": block.first + row, "reason": reason, "text": text}
            )
    return Parsed(
        pa.concat_tables([*fast, pa.Table.from_pylist(rows, ROWS)]),
        pa.Table.from_pylist(rejects, REJECTS),
        len(block),
        blank,
    )


def parse_line(line: bytes, period: Period) -> tuple[dict[str, Any] | None, str | None]:
    """(row, None) or (None, reason)."""
    record, reason = parse_object(line)
    return (None, reason) if record is None else check_record(record, period)


def check_record(
    record: dict[str, Any], period: Period
) -> tuple[dict[str, Any] | None, str | None]:
    """The rules for user, item, time and rating."""
    user, item = record.get("user_id"), record.get("parent_asin")
    item = record.get("asin") if item is None else item
    for name, value in (("user_id", user), ("parent_asin", item)):
        if value is None or value == "":
            return None, f"missing {name}"
        if not isinstance(value, str) or not is_text(value):
            return None, f"mistyped {name}"
    time = record.get("timestamp")
    if time is None:
        return None, "missing timestamp"
    if not isinstance(time, int) or isinstance(time, bool):
        return None, "mistyped timestamp"
    low, high = period.milliseconds
    if not low <= time < high:
        return None, "absurd timestamp"
    rating = _finite(record.get("rating"))
    return {"user_id": user, "item_id": item, "timestamp": time, "rating": rating}, None


def whole(digits: str) -> int:
    """A whole number; one too long for Python is cut, and as absurd as before."""
    return int(digits[:MANY_DIGITS])


_JSON = json.JSONDecoder(parse_int=whole)


def parse_object(line: bytes) -> tuple[dict[str, Any] | None, str | None]:
    """A line's JSON object, or why it has none."""
    try:
        record = _JSON.decode(line.decode("utf-8"))
    except UnicodeDecodeError:
        return None, "invalid UTF-8"
    except (ValueError, RecursionError):
        return None, "broken JSON"
    if not isinstance(record, dict):
        return None, "not an object"
    return record, None


def _split_off(block: Block, period: Period) -> tuple[list[pa.Table], list[int]]:
    """The tables that Arrow could read, and the lines left to `parse_line`."""
    text = np.frombuffer(block.text, dtype=np.uint8)
    braced = (text[block.starts[:-1]] == ord("{")) & (text[block.starts[1:] - 2] == ord("}"))
    try:
        block.text.decode("utf-8")
    except UnicodeDecodeError:
        braced[:] = False
    tables: list[pa.Table] = []
    slow = np.flatnonzero(~braced).tolist()
    ranges = [np.flatnonzero(braced)]
    while ranges:
        rows = ranges.pop()
        found = _read(block, rows, period) if len(rows) else None
        if found is not None:
            tables.append(found[0])
            slow.extend(found[1])
        elif len(rows) <= FEW:
            slow.extend(rows.tolist())
        else:
            ranges += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return tables, sorted(slow)


def _read(
    block: Block, rows: Int[np.ndarray, "n"], period: Period
) -> tuple[pa.Table, list[int]] | None:
    """These lines by Arrow; None if it trips over one or finds another number of objects than lines."""
    try:
        found = pa.json.read_json(
            pa.BufferReader(block.take(rows)),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=1 << 30),
            parse_options=_PARSE,
        )
    except pa.ArrowInvalid:
        return None
    if found.num_rows != len(rows):
        return None
    low, high = period.milliseconds
    item = pc.coalesce(found["parent_asin"], found["asin"])
    time = found["timestamp"]
    good = pc.and_(
        pc.and_(pc.not_equal(found["user_id"], ""), pc.not_equal(item, "")),
        pc.and_(pc.greater_equal(time, low), pc.less(time, high)),
    ).fill_null(False)
    finite = pc.is_finite(found["rating"])  # null where there is none
    good = pc.and_(good, finite.fill_null(True))  # Arrow also reads `Inf`, which is no JSON
    lines = pa.array(block.first + rows)
    table = pa.table([found["user_id"], item, time, found["rating"], lines], schema=ROWS)
    if pc.all(good).as_py():
        return table, []
    return table.filter(good), rows[~good.to_numpy()].tolist()


def _finite(rating: Any) -> float | None:
    """No model reads ratings, so a mistyped one (NaN included) is no reason to lose a purchase."""
    if isinstance(rating, bool) or not isinstance(rating, int | float):
        return None
    return float(rating) if abs(rating) <= LARGEST else None


def is_text(value: str) -> bool:
    """Lone surrogates, which JSON can spell, are no text."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
