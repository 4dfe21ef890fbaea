"""Checks of the line reader and of the settings, for any input (see `checks`)."""

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from zlib import crc32

import numpy as np

from llmsrec.core.config import load_section
from llmsrec.core.errors import ConfigError, DataError
from llmsrec.parsing.line_reader import LineBlock, read_blocks
from reliability.fuzzing.checks import lines_of, raw_lines
from reliability.fuzzing.settings import READERS, SECTIONS, may_be_taken, unchanged
from reliability.fuzzing.tally import Tally


def check_plain(content: bytes, folder: Path, tally: Tally) -> Iterator[str]:
    """The line reader on a plain file."""
    file = folder / "lines.jsonl"
    file.write_bytes(content)
    blocks = list(read_blocks(file, _block_size(content)))
    yield from _blocks(blocks, content)
    tally.files += 1
    tally.lines += len(lines_of(content))


def check_gzip(content: bytes, folder: Path, tally: Tally) -> Iterator[str]:
    """The line reader on a gzip; the standard library decides whether it is complete and what it contains."""
    file = folder / "lines.jsonl.gz"
    file.write_bytes(content)
    blocks: list[LineBlock] = []
    tally.files += 1
    try:
        blocks.extend(read_blocks(file, _block_size(content)))
    except DataError as error:
        tally.rejects["(file) damaged gzip"] += 1
        if str(file) not in str(error):
            yield f"an error does not name the file: {error}"
        if _decompress(content) is not None and content:
            yield f"a complete gzip is rejected: {error}"
        return
    text = _decompress(content)
    if text is None or not content:
        yield f"a damaged gzip is accepted as complete, with {sum(map(len, blocks))} lines"
        return
    yield from _blocks(blocks, text)
    tally.lines += len(lines_of(text))


def _decompress(content: bytes) -> bytes | None:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error):
        return None


def _block_size(content: bytes) -> int:
    """The block size in bytes; it grows with the content, to bound the number of blocks."""
    return int(2 ** Random(crc32(content)).uniform(0, 12)) + len(content) // 50


def _blocks(blocks: list[LineBlock], text: bytes) -> Iterator[str]:
    """The joined blocks are the text with a final line end; lines are numbered consecutively."""
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


def check_settings(content: bytes, folder: Path, tally: Tally) -> Iterator[str]:
    """A section becomes its dataclass, or an error that names the file and, if it got that far, the key."""
    file = folder / "params.yaml"
    file.write_bytes(content)
    tally.files += 1
    named = re.findall(rb"^([a-z]+):", content, re.MULTILINE)
    for section in [name for name in SECTIONS if name.encode() in named] or ["interactions"]:
        try:
            config = load_section(SECTIONS[section], section, file)
        except ConfigError as error:
            tally.rejects[f"(file) {_kind(str(error))}"] += 1
            yield from _rejected(str(error), file, section, content)
        else:
            tally.rows += 1
            if _lone_surrogates(config):
                yield f"the section {section} contains a lone surrogate"
            elif not any(may_be_taken(config, content, section, reader) for reader in READERS):
                yield f"the section {section} is accepted, but the rules reject it"


def _rejected(message: str, file: Path, section: str, content: bytes) -> Iterator[str]:
    """An error is short and names file and key; settings that nobody changed are not refused."""
    where = f"{file}: {section}"
    if not message.startswith(
        (f"{where}.", f"{where}: ", f"{file} is not YAML", f"{file} has no ")
    ):
        yield f"an error does not name file and key: {message}"
    if all(unchanged(content, section, reader) for reader in READERS):
        yield f"settings are refused that nobody changed: {message}"
    if len(message) > 2000:
        yield f"an error of {len(message)} characters: {message[:200]}"


def _lone_surrogates(config: Any) -> bool:
    texts = [
        text
        for value in vars(config).values()
        for text in (value if isinstance(value, tuple) else [value])
        if isinstance(text, str)
    ]
    return any("\ud800" <= letter <= "\udfff" for text in texts for letter in text)


def _kind(message: str) -> str:
    for words in ("is not YAML", "has no section", "unknown", "missing", "expected", "choose from"):
        if words in message:
            return words
    return "must be at least" if "must be at least" in message else "refused by the section"
