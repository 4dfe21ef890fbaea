"""Checks of the three line parsers, for any input.

A check is a function of a file's content alone (block sizes are drawn from its checksum), so that a failure can be
repeated and shrunk. It yields problems as sentences. Every line must become a row, a reject or a blank, as in `rules`.
"""

import gzip
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any
from unittest import mock
from zlib import crc32

import numpy as np

from llmsrec.core.errors import DataError
from llmsrec.parsing import csv_reader, csv_records, metadata, reviews
from llmsrec.parsing.line_reader import BLOCK_BYTES, LineBlock, ParsedBlock, read_blocks
from reliability.fuzzing import csv_rules, rules
from reliability.fuzzing.json_reader import NotJson, Reader
from reliability.fuzzing.rules import Verdict
from reliability.fuzzing.tally import Tally

PERIOD = reviews.DateRange(date(1995, 7, 16), date(2035, 1, 1))
SENTINEL = 1.5e-77  # replaces literals that only Arrow reads
ARROW_ONLY = re.compile(rb"(?<=[:,\[ \t])-?(?:Inf(?!inity)|(?<=-)NaN)")


def raw_lines(content: bytes) -> list[bytes]:
    """The lines of a file, without byte order marks and line feeds."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        del lines[-1]
    return [line.removeprefix(b"\xef\xbb\xbf") for line in lines]


def lines_of(content: bytes) -> list[bytes]:
    """The lines of a file, without line ends."""
    return [line.rstrip(b"\r\n") for line in raw_lines(content)]


def check_reviews(content: bytes, folder: Path, tally: Tally) -> Iterator[str]:
    """Raw reviews: each line by `parse_line`, all in blocks, some alone and some as a file."""
    draws = Random(crc32(content))
    lines = lines_of(content)
    verdicts = [rules.review(line) for line in lines]
    for number, (line, verdict) in enumerate(zip(lines, verdicts, strict=True), start=1):
        if line.strip(rules.BLANK):
            yield from _one_line(number, line, verdict)
    expected = Expected("reviews", lines, verdicts)
    blocks = [reviews.parse_block(block, "reviews", PERIOD) for block in cut(content, draws)]
    tally.add(blocks, len(lines))
    yield from expected.problems(blocks)
    for row in range(len(lines)):
        if len(lines) > 8 and crc32(lines[row]) % 50:
            continue  # depends on the line alone, so that shrinking keeps the choice
        block = LineBlock(np.array([1]), lines[row] + b"\n", np.array([0, len(lines[row]) + 1]))
        parsed = reviews.parse_block(block, "reviews", PERIOD)
        yield from Expected("reviews", [lines[row]], [verdicts[row]]).problems([parsed])
    if draws.random() < 0.2:
        yield from _as_file(content, folder / "reviews.jsonl", reviews, reviews.parse_reviews, expected)  # fmt: skip


def _one_line(number: int, line: bytes, verdict: Verdict) -> Iterator[str]:
    row, reason = reviews.parse_line(line, PERIOD)
    if verdict.loose and reason == "broken JSON":
        return
    if (row, reason) != (verdict.row, verdict.reason):
        yield f"parse_line differs from the rules: line {number}: {(row, reason)}, not {verdict}"


def cut(content: bytes, draws: Random) -> list[LineBlock]:
    """The content in blocks of one line, some or all lines."""
    text = b"".join(line + b"\n" for line in raw_lines(content))
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
    starts = np.concatenate([[0], ends])
    blocks, first, longest = [], 0, draws.choice([4, 20, 60, 150, 400])
    while first < len(ends):
        last = min(len(ends), first + draws.randint(max(1, longest // 4), longest))
        begin = starts[first]
        piece = text[begin : starts[last]]
        blocks.append(
            LineBlock(np.arange(first, last) + 1, piece, starts[first : last + 1] - begin)
        )
        first = last
    return blocks


def check_items(content: bytes, folder: Path, tally: Tally) -> Iterator[str]:
    """Item metadata, as a file."""
    lines, file = lines_of(content), folder / "meta_x.jsonl"
    expected = Expected(file.name, lines, [rules.item(line) for line in lines])
    yield from _as_file(content, file, metadata, metadata.parse_metadata, expected, tally)


def check_csv(content: bytes, folder: Path, tally: Tally) -> Iterator[str]:
    """CSV, as a file; a wrong header must be a DataError that names file and line."""
    file = folder / "x.csv"
    pieces = csv_rules.csv_records([line + b"\n" for line in raw_lines(content)])
    blank = [not b"".join(piece).strip(rules.BLANK) for piece in pieces]
    first = blank.index(False) if False in blank else len(pieces)
    header = csv_rules.csv_columns(b"".join(pieces[first])) if first < len(pieces) else None
    if header is None:
        file.write_bytes(content)
        try:
            list(csv_reader.parse_csv_reviews(file, PERIOD))
        except DataError as error:
            if not re.search(re.escape(str(file)) + r", line \d+: the header", str(error)):
                yield f"an error does not name file and line: {error}"
            tally.rejects["(file) header"] += 1
            tally.files += 1
        else:
            yield f"an invalid header is accepted: {content[:200]!r}"
        return
    found = [(b"", Verdict()) for piece in pieces[: first + 1] for _ in piece]
    for piece in pieces[first + 1 :]:
        found += csv_rules.csv_rows(piece, *header)
    expected = Expected(file.name, [text for text, _ in found], [verdict for _, verdict in found])
    parse = partial(csv_reader.parse_csv_reviews, dates=PERIOD)
    yield from _as_file(content, file, csv_records, parse, expected, tally)


def _as_file(
    content: bytes,
    file: Path,
    module: ModuleType,
    parse: Callable[..., Iterator[ParsedBlock]],
    expected: "Expected",
    tally: Tally | None = None,
) -> Iterator[str]:
    """Parse a file in one block and in many, gzipped or not; the rows must be those of the rules."""
    draws = Random(crc32(content))
    if draws.random() < 0.2:
        file = file.with_name(file.name + ".gz")
    file.write_bytes(gzip.compress(content, 1) if file.suffix == ".gz" else content)
    longest = max(map(len, expected.lines), default=0)
    small = max(longest // 20, int(2 ** draws.uniform(4, 14)))
    for size in (BLOCK_BYTES, small):
        with mock.patch.object(module, "read_blocks", partial(read_blocks, block_size=size)):
            blocks = list(parse(file, PERIOD) if module is reviews else parse(file))
        if tally and size == BLOCK_BYTES:
            tally.add(blocks, len(expected.lines))
        yield from replace(expected, file=file.name).problems(blocks)


@dataclass(frozen=True)
class Expected:
    """The expected result of each line of a file."""

    file: str
    lines: list[bytes]
    verdicts: list[Verdict]

    def problems(self, blocks: Sequence[ParsedBlock]) -> Iterator[str]:
        """Where the parsed blocks differ from it."""
        rows = [row for block in blocks for row in block.rows.to_pylist()]
        rejects = [reject for block in blocks for reject in block.rejects.to_pylist()]
        blank = sum(verdict == Verdict() for verdict in self.verdicts)
        if len(rows) + len(rejects) + blank != len(self.lines):
            yield (
                f"lines are lost or duplicated: {len(self.lines)} lines, of which {len(rows)} rows, {len(rejects)} "
                f"rejects, {blank} blank"
            )
        for row in rows:
            yield from invalid(row)
        yield from self._rejects(rejects)
        yield from self._rows(rows, {reject["line"] for reject in rejects})
        yield from self._texts(blocks)

    def _rejects(self, rejects: list[dict[str, Any]]) -> Iterator[str]:
        for reject in rejects:
            number, reason = reject["line"], reject["reason"]
            if reason not in rules.REASONS or reject["file"] != self.file:
                yield f"a reject with an unknown reason or file: {reject}"
            elif not 1 <= number <= len(self.lines):
                yield f"a reject without a line: {reject}"
            elif reject["text"] != self.lines[number - 1].decode("utf-8", "replace")[:500]:
                yield f"a reject with another line's text: {reject}"
            else:
                verdict = self.verdicts[number - 1]
                if reason != verdict.reason and not (verdict.loose and reason == "broken JSON"):
                    yield f"a reject differs from the rules: {reject}, not {verdict}"

    def _rows(self, rows: list[dict[str, Any]], rejected: set[int]) -> Iterator[str]:
        """Rows must come in order; those of metadata have no line number."""
        expected: list[dict[str, Any]] = []
        for number, verdict in enumerate(self.verdicts, start=1):
            either = (
                verdict.loose or verdict.row is None
            )  # a row or a reject: the two JSON readers may differ
            if either and number in rejected:
                continue
            row = verdict.row or self._arrow_row(number - 1, verdict)
            if row is not None:
                expected.append({**row, "line": number} if "timestamp" in row else row)
        if rows and "line" in rows[0]:
            rows = sorted(rows, key=lambda row: row["line"])
        if rows != expected:
            pairs = zip(rows, expected, strict=False)
            first = next((pair for pair in pairs if pair[0] != pair[1]), None)
            yield f"rows differ from the rules: {len(rows)}, not {len(expected)}; first: {first}"

    def _arrow_row(self, index: int, verdict: Verdict) -> dict[str, Any] | None:
        """The row that Arrow may read where the rules see broken JSON: `Inf` and `-NaN` in unused fields."""
        line = self.lines[index]
        if verdict.reason != "broken JSON" or not ARROW_ONLY.search(line):
            return None
        replaced = ARROW_ONLY.sub(str(SENTINEL).encode(), line)
        try:
            record = Reader().read(replaced.decode("utf-8"))
        except (NotJson, UnicodeDecodeError):
            return None
        if isinstance(record, dict) and SENTINEL in (record.get("rating"), record.get("asin")):
            return None
        return rules.review(replaced).row

    def _texts(self, blocks: Sequence[ParsedBlock]) -> Iterator[str]:
        expected: dict[str, Any] = {}
        for verdict in self.verdicts:
            if verdict.texts and verdict.row:
                expected.setdefault(verdict.row["item_id"], verdict.texts)
        texts = {item: texts for block in reversed(blocks) for item, texts in block.texts.items()}
        if texts != expected:
            yield f"item texts differ from the rules: {texts}, not {expected}"


def invalid(row: dict[str, Any]) -> Iterator[str]:
    """Violations of what every accepted row guarantees, whatever its line said."""
    for name in ("user_id", "item_id"):
        value = row.get(name, "-" if name == "user_id" else None)
        if not isinstance(value, str) or not value or not value.encode("utf-8", "ignore"):
            yield f"a row without a {name}: {row}"
    if "timestamp" in row:
        low, high = rules.FIRST, rules.END
        if type(row["timestamp"]) is not int or not low <= row["timestamp"] < high:
            yield f"a row outside of the period: {row}"
        if row["rating"] is not None and not math.isfinite(row["rating"]):
            yield f"a rating that is not finite: {row}"
