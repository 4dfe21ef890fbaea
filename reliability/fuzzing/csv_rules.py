"""What becomes of the lines of a CSV file: the second implementation of its rules (see `rules`)."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from reliability.fuzzing.json_reader import HUGE, MANY_DIGITS
from reliability.fuzzing.rules import (
    BLANK,
    BRANDS,
    CATEGORIES,
    ITEMS,
    USERS,
    Rejected,
    Verdict,
    decoded,
    interaction,
    item_texts,
)

NUMBERS = ("timestamp", "unixReviewTime", "rating", "overall")
CSV_NAMES = (*USERS, *ITEMS, *BRANDS, *CATEGORIES, *NUMBERS, "title", "description")
LONGEST_FIELD = 131_072  # the standard library's
LONGEST_RECORD = 131_072  # of several lines


def csv_columns(line: bytes) -> tuple[list[str], str] | None:
    """The columns of a header and the separator; None if it will not do. Python's own reader splits it."""
    best: tuple[list[str], str] | None = None
    for separator in ",;\t|":
        try:
            fields = next(csv.reader([line.strip(BLANK).decode()], delimiter=separator))
        except (UnicodeDecodeError, csv.Error):
            return None
        usual = {name.lower(): name for name in CSV_NAMES}
        names = [usual.get(name.strip().lower(), name.strip()) for name in fields]
        needed = (USERS, ITEMS, ("timestamp", "unixReviewTime"))
        if all(set(group) & set(names) for group in needed) and (
            best is None or len(names) > len(best[0])
        ):
            best = names, separator
    if best is None or any(best[0].count(name) > 1 for name in CSV_NAMES):
        return None
    return best


def csv_records(lines: list[bytes]) -> list[list[bytes]]:
    """Lines, with their ends, joined where a quote is open at the end of one and closed in a later one."""
    pieces, start = [], 0
    while start < len(lines):
        stop = start + 1
        if lines[start].count(b'"') % 2:
            closing = next((n for n in range(stop, len(lines)) if lines[n].count(b'"') % 2), None)
            if closing is not None and sum(map(len, lines[start : closing + 1])) <= LONGEST_RECORD:
                stop = closing + 1
        pieces.append(lines[start:stop])
        start = stop
    return pieces


def csv_rows(
    piece: list[bytes], columns: Sequence[str], separator: str
) -> list[tuple[bytes, Verdict]]:
    """The text and verdict that begin at each line of a piece; what a record of several lines takes is blank."""
    lines = b"".join(piece).rstrip(b"\r\n").split(b"\n")
    lines += [b""] * (len(piece) - len(lines))
    found: list[tuple[bytes, Verdict]] = []
    while len(found) < len(piece):
        rest = lines[len(found) :]
        used, verdict = (
            (1, Verdict()) if not rest[0].strip(BLANK) else _csv_row(rest, columns, separator)
        )
        found += [(b"\n".join(rest[:used]), verdict), *[(b"", Verdict())] * (used - 1)]
    return found


def _csv_row(lines: list[bytes], columns: Sequence[str], separator: str) -> tuple[int, Verdict]:
    """How many lines a record takes, and what it is."""
    try:
        if b"\0" in lines[0]:
            raise Rejected("NUL byte")
        fields, used = _fields(lines, separator)
        if len(fields) != len(columns):
            raise Rejected("wrong number of columns")
    except Rejected as rejected:
        return 1, Verdict(reason=str(rejected))
    record: dict[str, Any] = {
        name: value for name, value in zip(columns, fields, strict=True) if value
    }
    try:
        for name in ("timestamp", "unixReviewTime"):
            record[name] = _time(record.get(name, ""))
        for name in ("rating", "overall"):
            record[name] = _decimal(record.get(name, ""))
        row = interaction(record)
    except Rejected as rejected:
        return used, Verdict(reason=str(rejected))
    texts = {name: text for name, text in item_texts(record).items() if name != "item_id"}
    return used, Verdict(row, texts=texts if record.get("title", "").strip() else None)


def _time(text: str) -> int | str | None:
    if not text.strip():
        return None
    found = re.fullmatch(r"\s*([-+]?)([0-9]+)\s*", text)
    if not found:
        return text
    return int(found[1] + found[2]) if len(found[2]) < MANY_DIGITS else HUGE


def _decimal(text: str) -> float | None:
    plain = re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text)
    return float(text) if plain else None


def _fields(lines: list[bytes], separator: str) -> tuple[list[str], int]:
    """Fields between separators, and the lines that they take; one that starts with a quote ends with one, and has its
    own quotes doubled."""
    source, place, fields = _Source(iter(lines)), 0, []
    source.read_line()
    while True:
        value = ""
        if source.text[place : place + 1] == '"':
            value, place = source.quoted(place + 1)
            if source.text[place] not in f"{separator}\r\n":
                raise Rejected("broken CSV")
        ends = (source.text.find(mark, place) for mark in f"{separator}\r\n")
        end = min(end for end in ends if end >= 0)
        fields.append(value + source.text[place:end])
        if len(fields[-1]) > LONGEST_FIELD:
            raise Rejected("broken CSV")
        if source.text[end] != separator:
            if source.text[end:].strip("\r") != "\n":
                raise Rejected("broken CSV")
            return fields, source.used
        place = end + 1


@dataclass
class _Source:
    """The text of the lines that were read so far."""

    lines: Iterator[bytes]
    text: str = ""
    used: int = 0

    def read_line(self) -> bool:
        """False if there is none."""
        line = next(self.lines, None)
        if line is None:
            return False
        self.text, self.used = f"{self.text}{decoded(line)}\n", self.used + 1
        return True

    def quoted(self, place: int) -> tuple[str, int]:
        """The value up to the closing quote, and the place after it."""
        value = ""
        while True:
            end = self.text.find('"', place)
            if end >= 0:
                value, place = value + self.text[place:end], end + 1
                if self.text[place : place + 1] != '"':
                    return value, place
                value, place = value + '"', place + 1
            elif not self.read_line():
                raise Rejected("broken CSV")
