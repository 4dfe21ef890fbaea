"""The lines of a text file, gzipped or not, numbered, a bounded block at a time."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip_lib, igzip_threaded
from jaxtyping import Int

from llmsrec.core.errors import DataError
from llmsrec.core.progress import Progress

DAMAGED: Any = igzip_lib.IsalError  # its stub calls the class an instance
BLOCK = 4 << 20  # bytes of text held at a time, whatever the file's size


@dataclass(frozen=True)
class Block:
    """Whole lines: line i is text[starts[i]:starts[i + 1]], its number in the file `first` + i."""

    first: int
    text: bytes
    starts: Int[np.ndarray, "bounds"]  # one more than there are lines

    def __len__(self) -> int:
        return len(self.starts) - 1

    def line(self, row: int) -> bytes:
        return self.text[self.starts[row] : self.starts[row + 1]].rstrip(b"\r\n")

    def take(self, rows: Int[np.ndarray, "n"]) -> memoryview | bytes:
        """The text of these lines, sorted; a copy only where some are left out between them."""
        text = memoryview(self.text)
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        firsts, lasts = rows[np.r_[0, breaks]], rows[np.r_[breaks - 1, -1]] + 1
        runs = [
            text[start:stop]
            for start, stop in zip(self.starts[firsts], self.starts[lasts], strict=True)
        ]
        return runs[0] if len(runs) == 1 else b"".join(runs)


def read_blocks(file: Path, block_size: int = BLOCK) -> Iterator[Block]:
    """All lines of `file` in order; a damaged gzip is an error that names it."""
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


def _block(first: int, text: bytes) -> Block:
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1
    return Block(first, text, np.concatenate([[0], ends]))


def _open(file: Path) -> Any:
    if file.suffix == ".gz":
        if not file.stat().st_size:
            raise EOFError("it is empty, which no gzip is")
        return igzip_threaded.open(file, "rb")  # inflates on a thread of its own
    return file.open("rb")
