"""Blocks of lines against a split of the whole text, and gzip files damaged in every way."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.errors import DataError
from llmsrec.parsing.line_reader import LineBlock, read_blocks

LINES = [f'{{"line": {number}}}'.encode() for number in range(1, 41)]


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bytes], Path]:
    folder = tmp_path_factory.mktemp("lines")

    def write_one(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    return write_one


def numbered(blocks: list[LineBlock]) -> list[tuple[int, bytes]]:
    return [(block.first + row, block.line(row)) for block in blocks for row in range(len(block))]


@settings(deadline=None)
@given(
    lines=st.lists(st.binary(max_size=12).map(lambda text: text.translate(None, b"\r\n"))),
    end=st.sampled_from([b"\n", b"\r\n"]),
    closed=st.booleans(),
    zipped=st.booleans(),
    block_size=st.integers(1, 9),
)
def test_every_line_comes_once_in_order_with_its_number(
    write: Callable[[str, bytes], Path],
    lines: list[bytes],
    end: bytes,
    closed: bool,
    zipped: bool,
    block_size: int,
) -> None:
    text = end.join(lines) + (end if closed and lines else b"")
    if not closed and lines and lines[-1] == b"":
        lines = lines[:-1]  # nothing stands behind the last line's end
    file = write("x.gz", gzip.compress(text, 1)) if zipped else write("x", text)
    blocks = list(read_blocks(file, block_size))
    assert numbered(blocks) == list(enumerate(lines, start=1))
    assert all(block.text.endswith(b"\n") for block in blocks)


def test_a_line_longer_than_the_block_stays_whole(write: Callable[[str, bytes], Path]) -> None:
    text = b"short\n" + b"x" * 1000 + b"\nlast"
    found = numbered(list(read_blocks(write("x", text), 16)))
    assert found == [(1, b"short"), (2, b"x" * 1000), (3, b"last")]


def test_an_empty_file_has_no_line(write: Callable[[str, bytes], Path]) -> None:
    assert list(read_blocks(write("x", b""))) == []
    assert list(read_blocks(write("x.gz", gzip.compress(b"")))) == []


def test_gzip_members_one_after_another_are_one_text(write: Callable[[str, bytes], Path]) -> None:
    file = write("x.gz", gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n"))
    assert numbered(list(read_blocks(file))) == [(1, b"a"), (2, b"bc"), (3, b"d")]


def test_a_gzip_cut_anywhere_is_an_error_that_names_it(
    write: Callable[[str, bytes], Path],
) -> None:
    whole = gzip.compress(b"\n".join(LINES), mtime=0)
    for length in range(1, len(whole), 7):
        file = write("cut.jsonl.gz", whole[:length])
        with pytest.raises(DataError, match=r"cut\.jsonl\.gz breaks off after line"):
            list(read_blocks(file))


def test_a_wrong_byte_in_a_gzip_is_an_error_or_changes_no_line(
    write: Callable[[str, bytes], Path],
) -> None:
    """The header has bytes without effect (time, system); all others are caught, if only by the checksum."""
    whole = gzip.compress(b"\n".join(LINES), mtime=0)
    caught = 0
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 0xFF
        try:
            found = numbered(list(read_blocks(write("bad.gz", bytes(spoilt)))))
        except DataError as error:
            caught += "bad.gz" in str(error)
        else:
            assert found == list(enumerate(LINES, start=1))
    assert caught >= len(whole) - 10  # the gzip header has ten bytes


def test_a_damaged_gzip_tells_how_far_it_could_be_read(
    write: Callable[[str, bytes], Path],
) -> None:
    text = b"".join(f"{number * 7919 % 100_003} line\n".encode() for number in range(200_000))
    whole = gzip.compress(text, 1)
    lengths: list[int] = []
    blocks = read_blocks(write("long.gz", whole[: len(whole) // 2]), 1 << 12)
    with pytest.raises(DataError) as caught:
        lengths.extend(len(block) for block in blocks)
    assert sum(lengths) > 1000
    assert f"after line {sum(lengths)} " in str(caught.value)


def test_a_gzip_of_no_bytes_is_named(write: Callable[[str, bytes], Path]) -> None:
    with pytest.raises(DataError, match=r"nothing\.gz breaks off after line 0 \(it is empty"):
        list(read_blocks(write("nothing.gz", b"")))


def test_a_file_that_is_no_gzip_is_named(write: Callable[[str, bytes], Path]) -> None:
    with pytest.raises(DataError, match=r"plain\.jsonl\.gz"):
        list(read_blocks(write("plain.jsonl.gz", b'{"a": 1}\n')))
