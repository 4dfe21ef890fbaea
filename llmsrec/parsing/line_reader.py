"""Numbered lines of a text file, gzipped or not, in blocks of bounded size; parsing of a block in bulk or by line."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from isal import igzip_lib, igzip_threaded
from jaxtyping import Bool, Int

from llmsrec.core.errors import DataError
from llmsrec.core.progress import Progress

DAMAGED: Any = igzip_lib.IsalError  # its stub declares an instance
WORKERS = max(1, min(4, (os.cpu_count() or 2)))
BLOCK_BYTES = 4 << 20  # text held at a time, whatever the file's size
MAX_LINE_BYTES = 64 << 20
MAX_LINE_BY_LINE = 64  # lines that are parsed one by one rather than halved again
MAX_REJECT_CHARS = 500  # kept of a rejected line
BOM = b"\xef\xbb\xbf"  # a byte order mark, which some programs write before UTF-8

ItemTexts = dict[str, str | None]  # texts of one item, by column
Parsed = tuple[dict[str, Any] | None, str | None]  # (row, None) or (None, reason)
Rows = Int[np.ndarray, "_"]
REJECT_SCHEMA = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())]
)


@dataclass(frozen=True)
class LineBlock:
    """Complete lines, or records of several lines: row i is text[starts[i]:starts[i + 1]] from line `numbers[i]` on."""

    numbers: Int[np.ndarray, "rows"]
    text: bytes
    starts: Int[np.ndarray, "bounds"]  # one more than there are rows

    def __len__(self) -> int:
        return len(self.numbers)

    def line(self, row: int) -> bytes:
        return self.text[self.starts[row] : self.starts[row + 1]].rstrip(b"\r\n")

    def take(self, rows: Rows) -> memoryview | bytes:
        """The text of these rows, given in ascending order; a view where they are adjacent."""
        text = memoryview(self.text)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        firsts, lasts = rows[np.r_[0, breaks]], rows[np.r_[breaks - 1, -1]] + 1
        runs = [
            text[start:stop]
            for start, stop in zip(self.starts[firsts], self.starts[lasts], strict=True)
        ]
        return runs[0] if len(runs) == 1 else b"".join(runs)

    def rows_at(self, positions: Rows) -> Rows:
        """The row of each position in the text."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def valid_utf8(self) -> Bool[np.ndarray, "rows"]:
        """Whether a row is valid UTF-8."""
        valid, text, start = np.ones(len(self), dtype=bool), memoryview(self.text), 0
        while start < len(text):
            try:
                str(text[start:], "utf-8")
                break
            except UnicodeDecodeError as error:
                row = int(self.rows_at(np.array([start + error.start]))[0])
                valid[row], start = False, int(self.starts[row + 1])
        return valid


@dataclass(frozen=True)
class ParsedBlock:
    """Each line that is not blank is in a row or in a reject; `texts` are item texts from review rows, the first of
    each item."""

    rows: pa.Table
    rejects: pa.Table
    texts: dict[str, ItemTexts] = field(default_factory=dict)


def read_blocks(file: Path, block_size: int = BLOCK_BYTES) -> Iterator[LineBlock]:
    """All lines of `file` in order, without byte order marks; DataError if a gzip is damaged or a line is huge."""
    progress = Progress(f"reading {file.name}", None, "lines")
    first, rest = 1, b""
    try:
        with closing(_open(file)) as stream:
            while chunk := stream.read(block_size):
                text = rest + chunk
                cut = text.rfind(b"\n") + 1
                text, rest = text[:cut], text[cut:]
                if cut:
                    block = _block(first, text)
                    first += len(block)
                    progress.advance(len(block))
                    yield block
                if len(rest) > MAX_LINE_BYTES:
                    raise DataError(
                        f"{file}, line {first} has more than {MAX_LINE_BYTES >> 20} MB: expected text with one "
                        "interaction or item per line, and line ends LF or CRLF"
                    )
    except (EOFError, OSError, DAMAGED) as error:
        raise DataError(
            f"{file} breaks off after line {first - 1} ({error}): fetch it again, or remove .gz from its name if it is "
            "not compressed"
        ) from None
    if rest:
        yield _block(first, rest + b"\n")


def in_threads(
    parse: Callable[[LineBlock], ParsedBlock], blocks: Iterator[LineBlock]
) -> Iterator[ParsedBlock]:
    """Parse blocks on `WORKERS` threads; the results come in order, with at most three blocks in memory."""
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(parse, block) for block in islice(blocks, 3)]
        while futures:
            parsed = futures.pop(0).result()
            for block in islice(blocks, 1):
                futures.append(pool.submit(parse, block))
            yield parsed


def parse_in_bulk(
    block: LineBlock, rows: Rows, read: Callable[[LineBlock, Rows], tuple[pa.Table, Rows] | None]
) -> tuple[list[pa.Table], list[int]]:
    """The tables that `read` makes of many rows at once, and the rows to parse one by one.

    `read` returns a table and the rows that are not in it. It returns None if it fails; then the rows are halved until
    few are left."""
    tables, rest, pending = [], [], [rows]
    while pending:
        rows = pending.pop()
        result = read(block, rows) if len(rows) else None
        if result is not None:
            tables.append(result[0])
            rest.extend(result[1].tolist())
        elif len(rows) <= MAX_LINE_BY_LINE:
            rest.extend(rows.tolist())
        else:
            pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
    return tables, rest


def parse_lines(
    block: LineBlock,
    rows: Iterable[int],
    file: str,
    parse: Callable[[bytes], Parsed],
    schema: pa.Schema,
) -> ParsedBlock:
    """Parse some lines of a block one by one; blank ones are skipped."""
    lines = ((int(block.numbers[row]), block.line(row)) for row in rows)
    return collect(
        ((number, line, *parse(line)) for number, line in lines if line.strip()), file, schema
    )


def collect(
    results: Iterable[tuple[int, bytes, dict[str, Any] | None, str | None]],
    file: str,
    schema: pa.Schema,
) -> ParsedBlock:
    """A block of (line number, text, row or None, reason); rows carry their line number if `schema` has one."""
    parsed: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    for number, line, row, reason in results:
        if row is not None:
            parsed.append({**row, "line": number})
        else:
            text = line.decode("utf-8", "replace")[:MAX_REJECT_CHARS]
            rejects.append({"file": file, "line": number, "reason": reason, "text": text})
    return ParsedBlock(
        pa.Table.from_pylist(parsed, schema), pa.Table.from_pylist(rejects, REJECT_SCHEMA)
    )


def read_head(file: Path, size: int = 4096) -> bytes:
    """The first bytes of the text; what a damaged gzip still holds of them."""
    try:
        with closing(_open(file)) as stream:
            return bytes(stream.read(size))
    except (EOFError, OSError, DAMAGED):
        return b""


def line_ends(text: bytes) -> Int[np.ndarray, "lines"]:
    """Where each line of a text ends."""
    return np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1


def _block(first: int, text: bytes) -> LineBlock:
    text = text.removeprefix(BOM)
    # also where files were joined; a search for three bytes would cost more than parsing
    if BOM[:1] in text:
        text = text.replace(b"\n" + BOM, b"\n")
    ends = line_ends(text)
    return LineBlock(np.arange(first, first + len(ends)), text, np.concatenate([[0], ends]))


def _open(file: Path) -> Any:
    if file.suffix.lower() == ".gz":
        if not file.stat().st_size:
            raise EOFError("it is empty, which is not a valid gzip")
        return igzip_threaded.open(file, "rb")  # decompresses on a thread of its own
    return file.open("rb")
