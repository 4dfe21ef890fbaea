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
    """One bit."""
    if not text:
        return text
    place = draws.randrange(len(text))
    return text[:place] + bytes([text[place] ^ 1 << draws.randrange(8)]) + text[place + 1 :]


def delete(text: bytes, draws: Random) -> bytes:
    start, stop = _span(text, draws)
    return text[:start] + text[stop:]


def insert(text: bytes, draws: Random) -> bytes:
    place = draws.randrange(len(text) + 1)
    return text[:place] + draws.choice([*INSERTED, draws.randbytes(1)]) + text[place:]


def duplicate(text: bytes, draws: Random) -> bytes:
    start, stop = draws.choice([_span(text, draws), (0, len(text))])
    return text[:stop] + text[start:stop] + text[stop:]


def truncate(text: bytes, draws: Random) -> bytes:
    """Only the start or only the end remains."""
    place = draws.randrange(len(text) + 1)
    return draws.choice([text[:place], text[place:]])


def pad(text: bytes, draws: Random) -> bytes:
    edge = draws.choice([b" ", b"\t", b"\r", b"\x0b", b"\xef\xbb\xbf", b"\xc2\xa0", b"\x00"])
    return draws.choice([edge + text, text + edge, edge + text + edge])


def encode(text: bytes, draws: Random) -> bytes:
    """The same text in Latin-1, as in old exports, or in UTF-16, as some editors save it."""
    encoding = draws.choice(["latin-1", "utf-16", "utf-16-be"])
    return text.decode("utf-8", "replace").encode(encoding, "replace")


USUAL: tuple[Mutation, ...] = (flip, delete, insert, duplicate, truncate)
RARE: tuple[Mutation, ...] = (pad, encode)


def mutate(text: bytes, draws: Random) -> bytes:
    """The text after one to four mutations."""
    for _ in range(draws.choice([1, 1, 1, 2, 2, 3, 4])):
        mutation = draws.choice(RARE if draws.random() < 0.1 else USUAL)
        text = mutation(text, draws)
    return text


def splice(first: bytes, second: bytes, draws: Random) -> bytes:
    """The start of one text and the end of another, as after a torn write."""
    return first[: draws.randrange(len(first) + 1)] + second[draws.randrange(len(second) + 1) :]


def _span(text: bytes, draws: Random) -> tuple[int, int]:
    start = draws.randrange(len(text) + 1)
    return start, min(len(text), start + draws.choice([1, 1, 2, 4, 8, 16, 64]))
