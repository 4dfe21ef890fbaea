"""The rules for one line, written out; a block parsed by Arrow against these rules; files."""

import gzip
import json
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmsrec.parsing import line_reader, reviews
from llmsrec.parsing.line_reader import LineBlock, read_blocks
from llmsrec.parsing.reviews import DateRange, parse_block, parse_line, parse_reviews

DATES = DateRange(date(1995, 7, 16), date(2035, 1, 1))
VALID = {"user_id": "U", "parent_asin": "P", "asin": "A", "timestamp": 1_500_000_000_000}
ROW = {"user_id": "U", "item_id": "P", "timestamp": 1_500_000_000_000, "rating": None}
FIRST, END = (
    int(datetime(*day, tzinfo=UTC).timestamp()) * 1000 for day in ((1995, 7, 16), (2035, 1, 1))
)


def line(**changes: Any) -> bytes:
    return json.dumps({**VALID, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({key: value for key, value in VALID.items() if key != name}).encode()


def raw(fields: str) -> bytes:
    """The three required fields, then the given JSON."""
    return (
        b'{"user_id": "U", "parent_asin": "P", "timestamp": 1500000000000' + fields.encode() + b"}"
    )


def block_of(lines: list[bytes]) -> LineBlock:
    text = b"".join(line + b"\n" for line in lines)
    starts = np.concatenate([[0], np.cumsum([len(line) + 1 for line in lines])]).astype(np.int64)
    return LineBlock(101 + np.arange(len(lines)), text, starts)


ACCEPTED = [
    (line(), ROW),
    (line(rating=4.5), {**ROW, "rating": 4.5}),
    (line(rating=4), {**ROW, "rating": 4.0}),
    (line(rating=None), ROW),
    (line(rating="five"), ROW),
    (line(rating=True), ROW),
    (line(rating=[5]), ROW),
    (line(rating=float("nan")), ROW),
    (raw(', "rating": 1e999'), ROW),
    (line(rating=10**30), {**ROW, "rating": 1e30}),
    (line(rating=10**400), ROW),
    (raw(', "rating": ' + "9" * 5000), ROW),  # more digits than Python converts
    (raw(', "helpful_vote": -' + "9" * 5000), ROW),
    (line(parent_asin=None), {**ROW, "item_id": "A"}),
    (without("parent_asin"), {**ROW, "item_id": "A"}),
    (without("asin"), ROW),
    (line(asin=7), ROW),
    (line(user_id="Zoë 🎸"), {**ROW, "user_id": "Zoë 🎸"}),
    (line(title="half \ud800 of a pair", text=None, images=[{}]), ROW),
    (line(price=float("nan")), ROW),
    (line(timestamp=FIRST), {**ROW, "timestamp": FIRST}),
    (line(timestamp=END - 1), {**ROW, "timestamp": END - 1}),
    (b" \t" + line() + b" ", ROW),
    (raw(', "user_id": "V"'), {**ROW, "user_id": "V"}),  # the last of equal keys counts
    (raw(', "user\\u005fid": "V"'), {**ROW, "user_id": "V"}),
]
OF_2018 = {
    "reviewerID": "U",
    "asin": "A",
    "overall": 5.0,
    "unixReviewTime": 1_500_000_000,
    "reviewTime": "07 14, 2017",
}
ACCEPTED += [
    (json.dumps(OF_2018).encode(), {**ROW, "item_id": "A", "rating": 5.0}),
    (repr(OF_2018).encode(), {**ROW, "item_id": "A", "rating": 5.0}),
    (line(user_id=None, user="V", reviewerID=None), {**ROW, "user_id": "V"}),
    (line(parent_asin=None, asin=None, item="I"), {**ROW, "item_id": "I"}),
    (line(unixReviewTime=1, overall=1, rating=2), {**ROW, "rating": 2.0}),
]
REJECTED = [
    (line()[:40], "broken JSON"),
    (line() + line(), "broken JSON"),
    (line() + b",", "broken JSON"),
    (b"{'user_id': 'U'}", "missing parent_asin"),  # a dict of Python
    (b"{'user_id': open}", "broken JSON"),
    (b"{'user_id', 'asin'}", "not an object"),
    (line(timestamp=None, unixReviewTime=1_500_000_000_000), "absurd timestamp"),
    (line(timestamp=None, unixReviewTime=10**18), "absurd timestamp"),
    (line(timestamp=None, unixReviewTime=1.5e9), "mistyped timestamp"),
    (b'{"user_id": "a\tb"}', "broken JSON"),
    (b"[" * 100_000, "broken JSON"),
    (b"user,item,time", "broken JSON"),
    (b'["U", "P", 1500000000000]', "not an object"),
    (b"null", "not an object"),
    (line().replace(b'"U"', b'"\xff"'), "invalid UTF-8"),
    (line().replace(b'"U"', b'"\xed\xa0\x80"'), "invalid UTF-8"),  # an encoded surrogate
    (line(note="x").replace(b"x", b"caf\xe9"), "invalid UTF-8"),  # Latin-1
    (without("user_id"), "missing user_id"),
    (line(user_id=None), "missing user_id"),
    (line(user_id=""), "missing user_id"),
    (line(user_id=5), "mistyped user_id"),
    (line(user_id=["U"]), "mistyped user_id"),
    (line(user_id="\ud800"), "mistyped user_id"),
    (line(user_id="\udc00x"), "mistyped user_id"),
    (raw(', "user_id": null'), "missing user_id"),
    (line(parent_asin=None, asin=None), "missing parent_asin"),
    (line(parent_asin=""), "missing parent_asin"),
    (line(parent_asin=5), "mistyped parent_asin"),
    (line(parent_asin="\udfff"), "mistyped parent_asin"),
    (without("timestamp"), "missing timestamp"),
    (line(timestamp=None), "missing timestamp"),
    (line(timestamp="1500000000000"), "mistyped timestamp"),
    (line(timestamp=1.5e12), "mistyped timestamp"),
    (line(timestamp=True), "mistyped timestamp"),
    (line(timestamp=float("nan")), "mistyped timestamp"),
    (line(timestamp=FIRST - 1), "absurd timestamp"),
    (line(timestamp=END), "absurd timestamp"),
    (line(timestamp=1_500_000_000), "timestamp in seconds"),
    (line(timestamp=1_500_000_000_000_000), "timestamp in microseconds"),
    (line(timestamp=1_500_000_000_000_000_000), "timestamp in nanoseconds"),
    (line(timestamp="2017-07-14T02:40:00Z"), "mistyped timestamp"),
    (line(timestamp=0), "absurd timestamp"),
    (line(timestamp=-1), "absurd timestamp"),
    (line(timestamp=10**30), "absurd timestamp"),
    (raw(', "timestamp": ' + "9" * 5000), "absurd timestamp"),
    (raw(', "rating": Inf'), "broken JSON"),
    (raw(', "rating": -NaN'), "broken JSON"),
]


@pytest.mark.parametrize(("text", "row"), ACCEPTED)
def test_a_valid_line_gives_its_row(text: bytes, row: dict[str, Any]) -> None:
    assert parse_line(text, DATES) == (row, None)


@pytest.mark.parametrize(("text", "reason"), REJECTED, ids=[reason for _, reason in REJECTED])
def test_a_malformed_line_gives_its_reason(text: bytes, reason: str) -> None:
    assert parse_line(text, DATES) == (None, reason)


def test_a_block_of_mixed_lines_gives_all_rows_and_rejects() -> None:
    """Valid, malformed and blank lines alternate, so that Arrow fails repeatedly."""
    lines, rows, rejects = [], [], []
    for number in range(len(REJECTED)):
        text, row = ACCEPTED[number % len(ACCEPTED)]
        malformed, reason = REJECTED[number]
        rows.append({**row, "line": 101 + len(lines)})
        rejects.append((101 + len(lines) + 1, reason))
        lines += [text, malformed, b"  "]
    parsed = parse_block(block_of(lines), "some.jsonl", DATES)
    assert sorted(parsed.rows.to_pylist(), key=lambda row: row["line"]) == rows
    records = parsed.rejects.to_pylist()
    assert [(reject["line"], reject["reason"]) for reject in records] == rejects
    assert {reject["file"] for reject in records} == {"some.jsonl"}


@pytest.mark.parametrize(("text", "row"), ACCEPTED)
def test_a_valid_line_alone_gives_its_row(text: bytes, row: dict[str, Any]) -> None:
    """Without other lines that make Arrow fail."""
    parsed = parse_block(block_of([text]), "f", DATES)
    assert (parsed.rows.to_pylist(), len(parsed.rejects)) == ([{**row, "line": 101}], 0)


@pytest.mark.parametrize(("text", "reason"), REJECTED, ids=[reason for _, reason in REJECTED])
def test_a_malformed_line_alone_gives_its_reason(text: bytes, reason: str) -> None:
    parsed = parse_block(block_of([text]), "f", DATES)
    assert (parsed.rows.num_rows, parsed.rejects["reason"].to_pylist()) == (0, [reason])


def test_a_reject_has_the_start_of_its_text() -> None:
    malformed = b'{"user_id": "caf\xe9' + b"x" * 1000
    (reject,) = parse_block(block_of([malformed]), "f", DATES).rejects.to_pylist()
    assert reject["text"] == '{"user_id": "caf�' + "x" * 483  # 500 characters in all


JSON_VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    | st.sampled_from(["\ud800", "\udfff", "a\udc00b"])
    | st.lists(st.none(), max_size=2) | st.just({})
)  # fmt: skip
MOSTLY_VALID = {
    "user_id": st.sampled_from(["U", "V", "ü", ""]),
    "parent_asin": st.sampled_from(["P", "Q", None, ""]),
    "asin": st.sampled_from(["A", None]),
    "timestamp": st.integers(FIRST - 1, FIRST + 1) | st.integers(END - 2, END),
    "rating": st.none() | st.integers(1, 5) | st.floats(1, 5),
    "text": st.text(max_size=8),
}
NO_EXTRA_FIELDS: st.SearchStrategy[list[Any]] = st.just([])


@st.composite
def json_lines(draw: st.DrawFn, extra: st.SearchStrategy[list[Any]] = NO_EXTRA_FIELDS) -> bytes:
    """JSON from pairs instead of a dict, so that a key may occur twice."""
    pairs = [(name, draw(values)) for name, values in MOSTLY_VALID.items()] + draw(extra)
    dump = partial(json.dumps, ensure_ascii=draw(st.booleans()))
    text = "{" + ", ".join(f"{dump(key)}: {dump(value)}" for key, value in pairs) + "}"
    return text.encode("utf-8", "surrogatepass")


@st.composite
def irregular_lines(draw: st.DrawFn) -> bytes:
    """With other values or more keys, truncated, doubled or padded."""
    extra = st.lists(st.tuples(st.sampled_from([*MOSTLY_VALID, "", "x"]), JSON_VALUES), max_size=2)
    line = draw(json_lines(extra))
    cut = draw(st.integers(0, len(line)))
    forms = [line, line, line[:cut], line[cut:], line + line, b" " + line, line + b"\r"]
    return draw(st.sampled_from(forms))


JUNK = st.binary(max_size=6).map(lambda text: text.replace(b"\n", b""))
ANY_LINES = (
    st.lists(json_lines(), max_size=12)  # because one invalid byte keeps Arrow from a whole block
    | st.lists(json_lines() | irregular_lines(), max_size=12)
    | st.lists(json_lines() | irregular_lines() | JUNK, max_size=12)
)


@pytest.mark.parametrize("limit", [1, 3, 64])
@settings(deadline=None)
@given(lines=ANY_LINES)
@example(lines=[text for text, _ in ACCEPTED])
@example(lines=[b"{}"])
def test_a_block_equals_the_rules_line_by_line(limit: int, lines: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_reader, "MAX_LINE_BY_LINE", limit)  # 1: halve down to single lines
        parsed = parse_block(block_of(lines), "f", DATES)
    rows, rejects = [], []
    for number, text in enumerate(lines, start=101):
        text = text.rstrip(b"\r\n")
        if not text.strip():
            continue
        row, reason = parse_line(text, DATES)
        if row is None:
            rejects.append((number, reason, text.decode("utf-8", "replace")[:500]))
        else:
            rows.append({**row, "line": number})
    assert sorted(parsed.rows.to_pylist(), key=lambda row: row["line"]) == rows
    records = parsed.rejects.to_pylist()
    assert [(reject["line"], reject["reason"], reject["text"]) for reject in records] == rejects


def test_arrow_parses_the_lines_beside_an_invalid_byte(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reviews, "parse_line", lambda text, dates: (None, text.decode("latin-1")))
    lines = [line(user_id="ü"), b'{"caf\xe9"}', line(user_id="é"), b'{"\xff"}', line()]
    parsed = parse_block(block_of(lines), "f", DATES)
    assert parsed.rows["line"].to_pylist() == [101, 103, 105]
    assert parsed.rejects["line"].to_pylist() == [102, 104]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("block_size", [5, 1 << 20])
def test_a_file_gives_the_same_rows_in_every_form(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: bytes,
    closed: bool,
    zipped: bool,
    block_size: int,
) -> None:
    lines = [line(user_id="u1"), b"", line(user_id="u2")[:-3], line(user_id="u3"), b"\xff", line()]
    text = end.join(lines) + (end if closed else b"")
    file = tmp_path / ("x.jsonl.gz" if zipped else "x.jsonl")
    file.write_bytes(gzip.compress(text) if zipped else text)
    monkeypatch.setattr(reviews, "read_blocks", partial(read_blocks, block_size=block_size))
    blocks = list(parse_reviews(file, DATES))
    rows = [row for block in blocks for row in block.rows.to_pylist()]
    assert sorted((row["line"], row["user_id"]) for row in rows) == [(1, "u1"), (4, "u3"), (6, "U")]
    rejects = [reject for block in blocks for reject in block.rejects.to_pylist()]
    assert [(reject["file"], reject["line"], reject["reason"]) for reject in rejects] == [
        (file.name, 3, "broken JSON"),
        (file.name, 5, "invalid UTF-8"),
    ]
