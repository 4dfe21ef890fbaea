"""Checks of the parsers, for any file.

A check is a function of a file's content alone (block sizes are drawn from its checksum), so that a failure can be
repeated and shrunk. It yields problems as sentences. Every line must become a row, a reject or a blank, as in `rules`.
"""

import gzip
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from reliability.fuzzing.rules import Verdict

PERIOD = reviews.DateRange(date(1995, 7, 16), date(2035, 1, 1))
Parse = Callable[[Path], Iterator[ParsedBlock]]


def raw_lines(content: bytes) -> list[bytes]:
    """The lines of a file, without byte order marks and line feeds."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        del lines[-1]
    return [line.removeprefix(b"\xef\xbb\xbf") for line in lines]


def lines_of(content: bytes) -> list[bytes]:
    """The lines of a file, without line ends."""
    return [line.rstrip(b"\r") for line in raw_lines(content)]


def check_reviews(content: bytes, folder: Path, counts: Counter[str]) -> Iterator[str]:
    """Raw reviews: each line by `parse_line`, and the file."""
    lines = lines_of(content)
    expected = Expected("reviews.jsonl", lines, [rules.review(line) for line in lines])
    for number, (line, verdict) in enumerate(zip(lines, expected.verdicts, strict=True), start=1):
        if line.strip(rules.BLANK):
            row, reason = reviews.parse_line(line, PERIOD)
            if not verdict.loose and (row != verdict.row or reason) and reason != verdict.reason:
                yield f"parse_line differs from the rules: line {number}: {(row, reason)}, not {verdict}"
    parse = partial(reviews.parse_reviews, dates=PERIOD)
    yield from expected.check_file(content, folder, reviews, parse, counts)


def check_items(content: bytes, folder: Path, counts: Counter[str]) -> Iterator[str]:
    """Item metadata."""
    lines = lines_of(content)
    expected = Expected("meta_x.jsonl", lines, [rules.item(line) for line in lines])
    yield from expected.check_file(content, folder, metadata, metadata.parse_metadata, counts)


def check_csv(content: bytes, folder: Path, counts: Counter[str]) -> Iterator[str]:
    """CSV; an invalid header must be a DataError that names file and line."""
    found = csv_rules.csv_lines(raw_lines(content))
    parse = partial(csv_reader.parse_csv_reviews, dates=PERIOD)
    if found is not None:
        texts, verdicts = [text for text, _ in found], [verdict for _, verdict in found]
        expected = Expected("x.csv", texts, verdicts)
        yield from expected.check_file(content, folder, csv_records, parse, counts)
        return
    file = folder / "x.csv"
    file.write_bytes(content)
    try:
        list(parse(file))
    except DataError as error:
        if not re.search(re.escape(f"{file}, line ") + r"\d+: the header", str(error)):
            yield f"an error does not name file and line: {error}"
        counts["invalid header"] += 1
    else:
        yield f"an invalid header is accepted: {content[:200]!r}"


@dataclass(frozen=True)
class Expected:
    """The expected result of each line of a file; `lines` are the texts that begin there."""

    name: str
    lines: list[bytes]
    verdicts: list[Verdict]

    def check_file(
        self, content: bytes, folder: Path, module: ModuleType, parse: Parse, counts: Counter[str]
    ) -> Iterator[str]:
        """Parse the file in one block and in many, gzipped or not; `module` has the parser."""
        draws = Random(crc32(content))
        name = self.name + draws.choice(["", "", "", "", ".gz"])
        packed = gzip.compress(content, 1) if name.endswith(".gz") else content
        (folder / name).write_bytes(packed)
        longest = max(map(len, self.lines), default=0)
        for size in (BLOCK_BYTES, max(longest // 20, int(2 ** draws.uniform(4, 14)))):
            with mock.patch.object(module, "read_blocks", partial(read_blocks, block_size=size)):
                blocks = list(parse(folder / name))
            yield from self._problems(name, blocks)
        counts["lines"] += len(self.lines)
        counts["blank"] += self.verdicts.count(Verdict())
        for block in blocks:
            counts["accepted"] += block.rows.num_rows
            counts.update(block.rejects["reason"].to_pylist())

    def _problems(self, name: str, blocks: Sequence[ParsedBlock]) -> Iterator[str]:
        """Where the parsed blocks differ from the expected results."""
        blank = self.verdicts.count(Verdict())
        rows = [row for block in blocks for row in block.rows.to_pylist()]
        rejects = [reject for block in blocks for reject in block.rejects.to_pylist()]
        if len(rows) + len(rejects) + blank != len(self.lines):
            yield (
                f"lines are lost or duplicated: {len(self.lines)} lines, of which {len(rows)} rows, {len(rejects)} "
                f"rejects, {blank} blank"
            )
        for row in rows:
            yield from invalid(row)
        for reject in rejects:
            yield from self._reject(name, reject)
        yield from self._rows(rows, {reject["line"] for reject in rejects})
        yield from self._texts(blocks)

    def _reject(self, name: str, reject: dict[str, Any]) -> Iterator[str]:
        number, reason = reject["line"], reject["reason"]
        if reason not in rules.REASONS or reject["file"] != name:
            yield f"a reject with an unknown reason or file: {reject}"
        elif not 1 <= number <= len(self.lines):
            yield f"a reject without a line: {reject}"
        elif reject["text"] != self.lines[number - 1].decode("utf-8", "replace")[:500]:
            yield f"a reject with another line's text: {reject}"
        elif not (verdict := self.verdicts[number - 1]).loose and reason != verdict.reason:
            yield f"a reject differs from the rules: {reject}, not {verdict}"

    def _rows(self, rows: list[dict[str, Any]], rejected: set[int]) -> Iterator[str]:
        """Rows must come in order; those of metadata have no line number."""
        loose = {number for number, verdict in enumerate(self.verdicts, start=1) if verdict.loose}
        rows = [row for row in rows if row.get("line") not in loose]
        expected = [
            {**verdict.row, "line": number} if "timestamp" in verdict.row else verdict.row
            for number, verdict in enumerate(self.verdicts, start=1)
            if verdict.row is not None and number not in rejected
        ]
        if rows and "line" in rows[0]:
            rows = sorted(rows, key=lambda row: row["line"])
        if rows != expected:
            pairs = zip(rows, expected, strict=False)
            first = next((pair for pair in pairs if pair[0] != pair[1]), None)
            yield f"rows differ from the rules: {len(rows)}, not {len(expected)}; first: {first}"

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
        if type(row["timestamp"]) is not int or not rules.FIRST <= row["timestamp"] < rules.END:
            yield f"a row outside of the period: {row}"
        if row["rating"] is not None and not math.isfinite(row["rating"]):
            yield f"a rating that is not finite: {row}"


def check_plain(content: bytes, folder: Path, counts: Counter[str]) -> Iterator[str]:
    """The line reader on a plain file."""
    file = folder / "lines.jsonl"
    file.write_bytes(content)
    yield from _check_blocks(list(read_blocks(file, _block_size(content))), content)
    counts["lines"] += len(lines_of(content))


def check_gzip(content: bytes, folder: Path, counts: Counter[str]) -> Iterator[str]:
    """The line reader on a gzip; the standard library decides whether it is complete and what it contains."""
    file = folder / "lines.jsonl.gz"
    file.write_bytes(content)
    try:
        text = gzip.decompress(content) if content else None
    except (OSError, EOFError, zlib.error):
        text = None
    try:
        blocks = list(read_blocks(file, _block_size(content)))
    except DataError as error:
        counts["damaged gzip"] += 1
        if str(file) not in str(error):
            yield f"an error does not name the file: {error}"
        if text is not None:
            yield f"a complete gzip is rejected: {error}"
        return
    if text is None:
        yield f"a damaged gzip is accepted as complete, with {sum(map(len, blocks))} lines"
        return
    yield from _check_blocks(blocks, text)
    counts["lines"] += len(lines_of(text))


def _block_size(content: bytes) -> int:
    """The block size in bytes; it grows with the content, to bound the number of blocks."""
    return int(2 ** Random(crc32(content)).uniform(0, 12)) + len(content) // 50


def _check_blocks(blocks: list[LineBlock], text: bytes) -> Iterator[str]:
    """The joined blocks are the text without byte order marks and with a final line end; lines are numbered."""
    expected = b"".join(line + b"\n" for line in raw_lines(text))
    if b"".join(block.text for block in blocks) != expected:
        yield f"the blocks are not the file: {len(blocks)} blocks"
    numbered = [
        (int(block.numbers[row]), block.line(row)) for block in blocks for row in range(len(block))
    ]
    if numbered != list(enumerate(lines_of(text), start=1)):
        yield f"lines or numbers differ from the file: {len(numbered)}"
    for block in blocks[:3]:
        rows = np.flatnonzero(np.arange(len(block)) % 3 != 1)
        lines = [block.text[block.starts[row] : block.starts[row + 1]] for row in rows]
        if len(rows) and bytes(block.take(rows)) != b"".join(lines):
            yield f"take() returns other lines than requested: {rows}"
