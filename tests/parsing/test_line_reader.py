"""Blocks of lines against a split of the content text, and damaged gzip files."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.errors import DataError
from llmsrec.parsing import line_reader
from llmsrec.parsing.line_reader import LineBlock, read_blocks

LINES = [f'{{"line": {number}}}'.encode() for number in range(1, 41)]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], Path]:
    folder = tmp_path_factory.mktemp("lines")

    def write_file(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return write_file


def numbered(blocks: list[LineBlock]) -> list[tuple[int, bytes]]:
    return [
        (int(block.numbers[row]), block.line(row)) for block in blocks for row in range(len(block))
    ]


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(max_size=12).map(lambda text: text.translate(None, b"\r\n\xef"))),
    end=st.sampled_from([b"\n", b"\r\n"]),
    closed=st.booleans(),
    zipped=st.booleans(),
    block_size=st.integers(1, 9),
)
def test_every_line_is_read_once_in_order_with_its_number(
    write: Callable[[str, bytes], Path],
    lines: list[bytes],
    end: bytes,
    closed: bool,
    zipped: bool,
    block_size: int,
) -> None:
    text = end.join(lines) + (end if closed and lines else b"")
    if not closed and lines and lines[-1] == b"":
        lines = lines[:-1]  # no line follows the last line end
    file = write("x.gz", gzip.compress(text, 1)) if zipped else write("x", text)
    blocks = list(read_blocks(file, block_size))
    assert numbered(blocks) == list(enumerate(lines, start=1))
    assert all(block.text.endswith(b"\n") for block in blocks)


def test_a_line_longer_than_the_block_is_not_split(write: Callable[[str, bytes], Path]) -> None:
    text = b"short\n" + b"x" * 1000 + b"\nlast"
    lines = numbered(list(read_blocks(write("x", text), 16)))
    assert lines == [(1, b"short"), (2, b"x" * 1000), (3, b"last")]


@pytest.mark.parametrize("block_size", [4, 1 << 20])
def test_byte_order_marks_at_the_start_of_lines_are_removed(
    write: Callable[[str, bytes], Path], block_size: int
) -> None:
    """Also of a second file that was appended; elsewhere the character stays."""
    text = "\ufeffa\nb\ufeff\n\ufeffc".encode()
    expected = [(1, b"a"), (2, "b\ufeff".encode()), (3, b"c")]
    for file in (write("x", text), write("x.gz", gzip.compress(text))):
        assert numbered(list(read_blocks(file, block_size))) == expected


def test_a_file_without_line_ends_is_refused(
    write: Callable[[str, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line_reader, "MAX_LINE_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"x, line 2 has more than 1 MB: expected text with one"):
        list(read_blocks(write("x", b"a\n" + b"x\r" * (1 << 20)), 1 << 16))


def test_an_empty_file_has_no_line(write: Callable[[str, bytes], Path]) -> None:
    assert list(read_blocks(write("x", b""))) == []
    assert list(read_blocks(write("x.gz", gzip.compress(b"")))) == []


def test_concatenated_gzip_members_are_one_text(write: Callable[[str, bytes], Path]) -> None:
    file = write("x.gz", gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n"))
    assert numbered(list(read_blocks(file))) == [(1, b"a"), (2, b"bc"), (3, b"d")]


def test_a_truncated_gzip_is_an_error_that_names_it(
    write: Callable[[str, bytes], Path],
) -> None:
    content = gzip.compress(b"\n".join(LINES), mtime=0)
    for length in range(1, len(content), 7):
        file = write("cut.jsonl.gz", content[:length])
        with pytest.raises(DataError, match=r"cut\.jsonl\.gz breaks off after line"):
            list(read_blocks(file))


def test_a_wrong_byte_in_a_gzip_is_an_error_or_changes_no_line(
    write: Callable[[str, bytes], Path],
) -> None:
    """Some bytes of the header have no effect (time, system); all others are detected, at least by the checksum."""
    content = gzip.compress(b"\n".join(LINES), mtime=0)
    caught = 0
    for position in range(len(content)):
        corrupted = bytearray(content)
        corrupted[position] ^= 0xFF
        try:
            lines = numbered(list(read_blocks(write("bad.gz", bytes(corrupted)))))
        except DataError as error:
            caught += "bad.gz" in str(error)
        else:
            assert lines == list(enumerate(LINES, start=1))
    assert caught >= len(content) - 10  # the gzip header has ten bytes


def test_the_error_for_a_damaged_gzip_names_the_last_line(
    write: Callable[[str, bytes], Path],
) -> None:
    text = b"".join(f"{number * 7919 % 100_003} line\n".encode() for number in range(200_000))
    content = gzip.compress(text, 1)
    lengths: list[int] = []
    blocks = read_blocks(write("long.gz", content[: len(content) // 2]), 1 << 12)
    with pytest.raises(DataError) as caught:
        lengths.extend(len(block) for block in blocks)
    assert sum(lengths) > 1000
    assert f"after line {sum(lengths)} " in str(caught.value)


def test_the_error_names_an_empty_gzip(write: Callable[[str, bytes], Path]) -> None:
    with pytest.raises(DataError, match=r"nothing\.gz breaks off after line 0 \(it is empty"):
        list(read_blocks(write("nothing.gz", b"")))


def test_the_error_names_a_file_that_is_not_a_gzip(write: Callable[[str, bytes], Path]) -> None:
    with pytest.raises(DataError, match=r"plain\.jsonl\.gz"):
        list(read_blocks(write("plain.jsonl.gz", b'{"a": 1}\n')))
