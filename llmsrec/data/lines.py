"""The lines of a text file, gzipped or not, numbered, a bounded block at a time."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip_threaded
from jaxtyping import Int

from llmsrec.errors import DataError
from llmsrec.progress import Progress

BLOCK = 4 << 20  # bytes of text held at a time, whatever the file's size


@dataclass(frozen=True)
class Block:
    """Whole lines: line i is text[starts[i]:starts[i + 1]], its number in the file `first` + i."""

    first: int
    text: bytes
    starts: Int[np.ndarray, "lines+1"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def line(self, row: int) -> bytes:
        return self.text[self.starts[row] : self.starts[row + 1]].rstrip(b"\r\n")

    def rows(self, start: int, stop: int) -> memoryview:
        return memoryview(self.text)[self.starts[start] : self.starts[stop]]


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
    except (EOFError, gzip.BadGzipFile, zlib.error, OSError) as error:
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
        return igzip_threaded.open(file, "rb")  # inflates on a thread of its own
    return file.open("rb")
