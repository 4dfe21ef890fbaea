"""Lines of a text file, gzipped or not, numbered, in blocks of bounded size; parsing of a block line by line."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from isal import igzip_lib, igzip_threaded
from jaxtyping import Int

from llmsrec.core.errors import DataError
from llmsrec.core.progress import Progress

DAMAGED: Any = igzip_lib.IsalError  # its stub declares an instance
BLOCK_BYTES = 4 << 20  # text held at a time, whatever the file's size
MAX_REJECT_CHARS = 500  # kept of a rejected line

ItemTexts = dict[str, str | None]  # texts of one item, by column
Parse = Callable[[bytes], tuple[dict[str, Any] | None, str | None]]  # (row, None) or (None, reason)
REJECT_SCHEMA = pa.schema(
    [("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())]
)


@dataclass(frozen=True)
class LineBlock:
    """Complete lines: line i is text[starts[i]:starts[i + 1]]; its number in the file is `first` + i."""

    first: int
    text: bytes
    starts: Int[np.ndarray, "bounds"]  # one more than there are lines

    def __len__(self) -> int:
        return len(self.starts) - 1

    def line(self, row: int) -> bytes:
        return self.text[self.starts[row] : self.starts[row + 1]].rstrip(b"\r\n")

    def take(self, rows: Int[np.ndarray, "n"]) -> memoryview | bytes:
        """The text of these lines, given in ascending order; a view where they are adjacent."""
        text = memoryview(self.text)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        firsts, lasts = rows[np.r_[0, breaks]], rows[np.r_[breaks - 1, -1]] + 1
        runs = [
            text[start:stop]
            for start, stop in zip(self.starts[firsts], self.starts[lasts], strict=True)
        ]
        return runs[0] if len(runs) == 1 else b"".join(runs)


@dataclass(frozen=True)
class ParsedBlock:
    """`num_lines` = rows + rejects + `num_blank`; `texts` are item texts from review rows, the first of each item."""

    rows: pa.Table
    rejects: pa.Table
    num_lines: int
    num_blank: int
    texts: dict[str, ItemTexts] = field(default_factory=dict)


def read_blocks(file: Path, block_size: int = BLOCK_BYTES) -> Iterator[LineBlock]:
    """All lines of `file` in order; DataError if a gzip is damaged."""
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
    except (EOFError, OSError, DAMAGED) as error:
        raise DataError(
            f"{file} breaks off after line {first - 1} ({error}): fetch it again"
        ) from None
    if rest:
        yield _block(first, rest + b"\n")


def parse_lines(
    block: LineBlock, rows: Iterable[int], file: str, parse: Parse, schema: pa.Schema
) -> ParsedBlock:
    """Parse some lines of a block; rows carry their line number if `schema` has one. Blank lines are skipped."""
    parsed: list[dict[str, Any]] = []
    rejects: list[dict[str, Any]] = []
    num_blank = 0
    for row in rows:
        line, number = block.line(row), block.first + row
        if not line.strip():
            num_blank += 1
            continue
        record, reason = parse(line)
        if record is not None:
            parsed.append({**record, "line": number})
        else:
            text = line.decode("utf-8", "replace")[:MAX_REJECT_CHARS]
            rejects.append({"file": file, "line": number, "reason": reason, "text": text})
    return ParsedBlock(
        pa.Table.from_pylist(parsed, schema),
        pa.Table.from_pylist(rejects, REJECT_SCHEMA),
        len(block),
        num_blank,
    )


def _block(first: int, text: bytes) -> LineBlock:
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
    return LineBlock(first, text, np.concatenate([[0], ends]))


def _open(file: Path) -> Any:
    if file.suffix == ".gz":
        if not file.stat().st_size:
            raise EOFError("it is empty, which is not a valid gzip")
        return igzip_threaded.open(file, "rb")  # decompresses on a thread of its own
    return file.open("rb")
