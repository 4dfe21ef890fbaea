"""The header and the records of a CSV file. A record may have several lines (decision 19)."""

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from llmsrec.core.errors import DataError
from llmsrec.parsing.line_reader import LineBlock, Parsed, line_ends, read_blocks
from llmsrec.parsing.metadata import TEXT_NAMES
from llmsrec.parsing.reviews import FIELD_TYPES

SEPARATORS = ",;\t|"
QUOTE, CR, LF = ord('"'), ord("\r"), ord("\n")
MAX_RECORD_BYTES = 1 << 17  # of a record of several lines; and the limit of `csv` for a value
KNOWN = {name.lower(): name for name in (*FIELD_TYPES, *TEXT_NAMES)}
Needed = dict[str, tuple[str, ...]]  # column -> its names


@dataclass(frozen=True)
class Header:
    """The separator of a file and the names of its columns; known ones in their usual spelling."""

    separator: str
    names: list[str]


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


def open_csv(file: Path, needed: Needed) -> tuple[Header, Iterator[LineBlock]]:
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


def is_regular(block: LineBlock, separator: str) -> Bool[np.ndarray, "rows"]:
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
    text: UInt8[np.ndarray, "bytes"], starts: Int[np.ndarray, "bounds"], separator: str
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


def parse_records(
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
