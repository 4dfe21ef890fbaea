"""Mutations of bytes, as disks, transfers, editors and exports damage files."""

from collections.abc import Callable
from random import Random

Mutation = Callable[[bytes, Random], bytes]
INSERTED = [
    b"\n", b"\r", b"\r\n", b"\x00", b"\t", b"\x0b", b"\x1f", b"\x7f", b'"', b"'", b"\\", b",", b":", b";", b"{", b"}",
    b"[", b"]", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8",
    b"\xe2\x80\x8b", b"\xc2\x85", b"\xc2\xa0", b"\\u0000", b"\\ud800", b"\\udc00", b"Inf", b"NaN", b"null", b"-", b"0",
    b"_", b".", b"e", b"/**/", b"#", b"&a", b"*a", b"!!", b"<<: ", b"|", b">", b"? ", b"- ", b": ", b"%",
]  # fmt: skip


def flip(text: bytes, draws: Random) -> bytes:
    if not text:
        return text
    place = draws.randrange(len(text))
    return text[:place] + bytes([text[place] ^ 1 << draws.randrange(8)]) + text[place + 1 :]


def overwrite(text: bytes, draws: Random) -> bytes:
    if not text:
        return text
    place = draws.randrange(len(text))
    return text[:place] + draws.randbytes(1) + text[place + 1 :]


def delete(text: bytes, draws: Random) -> bytes:
    start, stop = _span(text, draws)
    return text[:start] + text[stop:]


def insert(text: bytes, draws: Random) -> bytes:
    place = draws.randrange(len(text) + 1)
    return text[:place] + draws.choice(INSERTED) + text[place:]


def duplicate(text: bytes, draws: Random) -> bytes:
    start, stop = _span(text, draws)
    return text[:stop] + text[start:stop] + text[stop:]


def move(text: bytes, draws: Random) -> bytes:
    start, stop = _span(text, draws)
    rest = text[:start] + text[stop:]
    place = draws.randrange(len(rest) + 1)
    return rest[:place] + text[start:stop] + rest[place:]


def truncate(text: bytes, draws: Random) -> bytes:
    return text[: draws.randrange(len(text) + 1)]


def behead(text: bytes, draws: Random) -> bytes:
    return text[draws.randrange(len(text) + 1) :]


def double(text: bytes, draws: Random) -> bytes:
    return text + draws.choice([b"", b" ", b",", b"\r", b"\x00"]) + text


def pad(text: bytes, draws: Random) -> bytes:
    edge = draws.choice([b" ", b"\t", b"\r", b"\x0b", b"\xef\xbb\xbf", b"\xc2\xa0", b"\x00"])
    return draws.choice([edge + text, text + edge, edge + text + edge])


def latin(text: bytes, draws: Random) -> bytes:
    """The same text in Latin-1, as in old exports."""
    return text.decode("utf-8", "replace").encode("latin-1", "replace")


def wide(text: bytes, draws: Random) -> bytes:
    """The same text in UTF-16, as some editors save it."""
    return text.decode("utf-8", "replace").encode(draws.choice(["utf-16", "utf-16-be"]))


ALL: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        flip, overwrite, delete, insert, duplicate, move, truncate, behead, double, pad, latin, wide,
    )
}  # fmt: skip
# Mutations of some bytes are more frequent than those of all bytes.
USUAL = [*list(ALL)[:9], "flip", "insert", "delete", *list(ALL)]


def mutate(text: bytes, draws: Random) -> tuple[bytes, list[str]]:
    """The text after one to four mutations, and their names."""
    names = draws.choices(USUAL, k=draws.choice([1, 1, 1, 2, 2, 3, 4]))
    for name in names:
        text = ALL[name](text, draws)
    return text, names


def splice(first: bytes, second: bytes, draws: Random) -> bytes:
    """The start of one text and the end of another, as after a torn write."""
    return first[: draws.randrange(len(first) + 1)] + second[draws.randrange(len(second) + 1) :]


def _span(text: bytes, draws: Random) -> tuple[int, int]:
    start = draws.randrange(len(text) + 1)
    return start, min(len(text), start + draws.choice([1, 1, 2, 4, 8, 16, 64]))
