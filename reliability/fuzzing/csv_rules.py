"""What becomes of the lines of a CSV file: the second implementation of its rules (see `rules`)."""

import csv
import re
from collections.abc import Sequence
from typing import Any

from reliability.fuzzing.rules import (
    BLANK,
    BRANDS,
    CATEGORIES,
    ITEMS,
    RATINGS,
    USERS,
    Rejected,
    Verdict,
    integer,
    interaction,
    item_texts,
)

TIMES = ("timestamp", "unixReviewTime")
CSV_NAMES = (*USERS, *ITEMS, *BRANDS, *CATEGORIES, *TIMES, *RATINGS, "title", "description")
LONGEST_RECORD = 131_072  # of several lines


def csv_lines(lines: list[bytes]) -> list[tuple[bytes, Verdict]] | None:
    """The text and verdict that begin at each line of a file; None if its header is invalid.

    A blank line, the header, and all but the first line of a record have neither row nor reason."""
    header, found = None, list[tuple[bytes, Verdict]]()
    for piece in _pieces(lines):
        if header is not None:
            found += csv_rows(piece, *header)
            continue
        if first := b"\n".join(piece).strip(BLANK):
            header = csv_columns(first)
            if header is None:
                return None
        found += [(b"", Verdict())] * len(piece)
    return found if header else None


def csv_columns(line: bytes) -> tuple[list[str], str] | None:
    """The columns of a header and the separator; None if it is invalid."""
    best: tuple[list[str], str] | None = None
    usual = {name.lower(): name for name in CSV_NAMES}
    for separator in ",;\t|":
        try:
            fields = next(csv.reader([line.decode()], delimiter=separator))
        except (UnicodeDecodeError, csv.Error):
            return None
        names = [usual.get(name.strip().lower(), name.strip()) for name in fields]
        complete = all(set(group) & set(names) for group in (USERS, ITEMS, TIMES))
        if complete and (best is None or len(names) > len(best[0])):
            best = names, separator
    if best is None or any(best[0].count(name) > 1 for name in CSV_NAMES):
        return None
    return best


def _pieces(lines: list[bytes]) -> list[list[bytes]]:
    """Lines joined where a quote is open at the end of one and closed in a later one."""
    pieces, start = [], 0
    while start < len(lines):
        stop = start + 1
        if lines[start].count(b'"') % 2:
            closing = next((n for n in range(stop, len(lines)) if lines[n].count(b'"') % 2), start)
            if len(b"\n".join(lines[start : closing + 1])) < LONGEST_RECORD:
                stop = closing + 1
        pieces.append(lines[start:stop])
        start = stop
    return pieces


def csv_rows(
    lines: list[bytes], columns: Sequence[str], separator: str
) -> list[tuple[bytes, Verdict]]:
    """The text and verdict that begin at each line; of a record that cannot be read, the next line starts anew."""
    rest, found = [*lines[:-1], lines[-1].rstrip(b"\r")], list[tuple[bytes, Verdict]]()
    while rest:
        used, verdict = 1, Verdict()
        if rest[0].strip(BLANK):
            used, verdict = _record(rest, columns, separator)
        found += [(b"\n".join(rest[:used]), verdict), *[(b"", Verdict())] * (used - 1)]
        rest = rest[used:]
    return found


def _record(lines: list[bytes], columns: Sequence[str], separator: str) -> tuple[int, Verdict]:
    """How many lines a record takes, and what it is."""
    texts, used = (line.decode() + "\n" for line in lines), 1
    reader = csv.reader(texts, delimiter=separator, strict=True)
    try:
        if b"\0" in lines[0]:
            raise Rejected("NUL byte")
        fields = next(reader)
        if len(fields) != len(columns):
            raise Rejected("wrong number of columns")
        used = reader.line_num
        return used, _judge(
            {name: value for name, value in zip(columns, fields, strict=True) if value}
        )
    except UnicodeDecodeError:
        return used, Verdict(reason="invalid UTF-8")
    except csv.Error:
        return used, Verdict(reason="broken CSV")
    except Rejected as rejected:
        return used, Verdict(reason=str(rejected))


def _judge(record: dict[str, Any]) -> Verdict:
    times = {name: _time(record.get(name, "")) for name in TIMES}
    ratings = {name: _decimal(record.get(name, "")) for name in RATINGS}
    row = interaction(record | times | ratings)
    if not record.get("title", "").strip():
        return Verdict(row)
    texts = item_texts(record)
    del texts["item_id"]
    return Verdict(row, texts=texts)


def _time(text: str) -> int | str | None:
    if not text.strip():
        return None
    return integer(text.strip()) if re.fullmatch(r"\s*[-+]?[0-9]+\s*", text) else text


def _decimal(text: str) -> float | None:
    plain = re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text)
    return float(text) if plain else None
