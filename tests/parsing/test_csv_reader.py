"""CSV: headers, rejects and item texts, written out."""

import gzip
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.errors import DataError
from llmsrec.parsing import csv_reader, csv_records
from llmsrec.parsing.csv_reader import parse_csv_items, parse_csv_reviews
from llmsrec.parsing.line_reader import ItemTexts, read_blocks
from llmsrec.parsing.reviews import DateRange

DATES = DateRange(date(1995, 7, 16), date(2035, 1, 1))
TIME = 1_500_000_000_000
HEADER = b"user_id,parent_asin,rating,timestamp\n"


def parse(
    file: Path, content: bytes
) -> tuple[list[dict[str, Any]], list[tuple[int, str]], dict[str, ItemTexts]]:
    """Rows, (line, reason) of the rejects, and item texts."""
    file.write_bytes(content)
    blocks = list(parse_csv_reviews(file, DATES))
    texts = {item: text for block in reversed(blocks) for item, text in block.texts.items()}
    rows = [row for block in blocks for row in block.rows.sort_by("line").to_pylist()]
    rejects = [reject for block in blocks for reject in block.rejects.to_pylist()]
    assert all(reject["file"] == file.name for reject in rejects)
    return rows, [(reject["line"], reject["reason"]) for reject in rejects], texts


def test_the_columns_of_the_5_core_files(tmp_path: Path) -> None:
    rows, rejects, texts = parse(
        tmp_path / "x.csv", HEADER + f"U,P,4.5,{TIME}\nV,Q,,{TIME + 1}\n".encode()
    )
    assert rows == [
        {"user_id": "U", "item_id": "P", "timestamp": TIME, "rating": 4.5, "line": 2},
        {"user_id": "V", "item_id": "Q", "timestamp": TIME + 1, "rating": None, "line": 3},
    ]
    assert (rejects, texts) == ([], {})


@pytest.mark.parametrize("item", ["item", "item_id", "asin", '"Parent_ASIN"'])
def test_column_aliases_in_any_order_after_a_byte_order_mark(tmp_path: Path, item: str) -> None:
    content = f"\ufefftimestamp,{item},user\r\n{TIME},P,U\r\n".encode()
    rows, rejects, _ = parse(tmp_path / "x.csv", content)
    assert [(row["user_id"], row["item_id"], row["timestamp"]) for row in rows] == [
        ("U", "P", TIME)
    ]
    assert rejects == []


def test_every_malformed_line_has_its_number_and_reason(tmp_path: Path) -> None:
    malformed = [
        (f",P,1,{TIME}".encode(), "missing user_id"),
        (f"U,,1,{TIME}".encode(), "missing parent_asin"),
        (b"U,P,1,", "missing timestamp"),
        (b"U,P,1,2017-07-14", "mistyped timestamp"),
        (b"U,P,1,1.5e12", "mistyped timestamp"),
        (b"U,P,1,1_500_000_000_000", "mistyped timestamp"),
        ("U,P,1,\u0661\u0665".encode() + "\u0660".encode() * 11, "mistyped timestamp"),
        (b"U,P,1," + b"9" * 5000, "absurd timestamp"),
        (b"U,P,1, ", "missing timestamp"),
        (b"U,P,1,0", "absurd timestamp"),
        (b"U,P,1,1500000000", "timestamp in seconds"),
        (b"U,P,1,1500000000000000", "timestamp in microseconds"),
        (b"U,P,1,1500000000000000000", "timestamp in nanoseconds"),
        (b"U,P,1,0x15D3EF79800", "mistyped timestamp"),
        (f"\0\0U,P,1,{TIME}".encode(), "NUL byte"),
        (f"U,P,1,{TIME}\rV,P,1,{TIME}".encode(), "broken CSV"),
        (f"U,P,{TIME}".encode(), "wrong number of columns"),
        (f"U,P,1,{TIME},x".encode(), "wrong number of columns"),
        (f'U,"P,1,{TIME}'.encode(), "broken CSV"),
        (f"U,\xff,1,{TIME}".encode("latin-1"), "invalid UTF-8"),
    ]
    lines = [line for line, _ in malformed]
    _, rejects, _ = parse(tmp_path / "x.csv", HEADER + b"\n".join(lines))
    assert rejects == [(number, reason) for number, (_, reason) in enumerate(malformed, start=2)]


@pytest.mark.parametrize("rating", ["five", "nan", "inf", "1e999", "1_0", ""])
def test_an_invalid_rating_is_null(tmp_path: Path, rating: str) -> None:
    rows, rejects, _ = parse(tmp_path / "x.csv", HEADER + f"U,P,{rating},{TIME}".encode())
    assert [row["rating"] for row in rows] == [None]
    assert rejects == []


def test_blank_lines_and_the_header_are_skipped(tmp_path: Path) -> None:
    content = b"\n" + HEADER + f"\nU,P,1,{TIME}\n  \n\r\n".encode()
    rows, rejects, _ = parse(tmp_path / "x.csv", content)
    assert [row["line"] for row in rows] == [4]
    assert rejects == []


def test_item_texts_come_from_the_first_row_with_a_title(tmp_path: Path) -> None:
    content = (
        "user,item,timestamp,title,brand\n"
        f"U,P,{TIME},,none yet\n"
        f'V,P,{TIME},"Lamp, ""small""",  Lux \n'
        f"W,P,{TIME},Another,Other\n"
    ).encode()
    _, _, texts = parse(tmp_path / "x.csv", content)
    expected: ItemTexts = {
        "title": 'Lamp, "small"', "description": None, "brand": "Lux", "category": None
    }  # fmt: skip
    assert texts == {"P": expected}


@pytest.mark.parametrize("block_size", [3, 17, 1 << 20])
def test_small_blocks_and_gzip_give_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_size: int
) -> None:
    monkeypatch.setattr(csv_records, "read_blocks", partial(read_blocks, block_size=block_size))
    content = gzip.compress(HEADER + f"U,P,1,{TIME}\nbad\nV,Q,2,{TIME}".encode())
    rows, rejects, _ = parse(tmp_path / "x.csv.gz", content)
    assert [(row["line"], row["user_id"]) for row in rows] == [(2, "U"), (4, "V")]
    assert rejects == [(3, "wrong number of columns")]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"user_id,parent_asin,rating", "no column 'timestamp'"),
        (b"parent_asin,timestamp", "no column 'user_id'"),
        (b"user_id,product,timestamp", "no column 'parent_asin'"),
        (b'{"user_id": "U"}', "a file of JSON lines is named .jsonl"),
        (b"user_id,item,timestamp,Timestamp", "two columns 'timestamp'"),
        (b"U,P,4.0,1500000000000", "no column 'user_id'"),  # data from the first line on
        (b"", "the header is missing"),
        (b"user_id,caf\xe9,timestamp", "cannot be read"),
    ],
)
def test_an_invalid_header_is_an_error_that_names_the_file(
    tmp_path: Path, header: bytes, message: str
) -> None:
    file = tmp_path / "some.csv"
    file.write_bytes(header + b"\n")
    with pytest.raises(DataError, match=message) as caught:
        list(parse_csv_reviews(file, DATES))
    assert "some.csv, line 1" in str(caught.value)


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_are_recognised_by_the_header(tmp_path: Path, separator: str) -> None:
    lines = [
        ["user_id", "item", "timestamp", "title"],
        ["U", f'"0,0{separator}7"', str(TIME), '12" pipe'],
        ["V", "Q", str(TIME)],
    ]
    content = "\r\n".join(separator.join(line) for line in lines)
    rows, rejects, texts = parse(tmp_path / "x.tsv", content.encode())
    assert [(row["user_id"], row["item_id"]) for row in rows] == [("U", f"0,0{separator}7")]
    assert rejects == [(3, "wrong number of columns")]
    assert texts[f"0,0{separator}7"]["title"] == '12" pipe'


def test_the_names_of_2018_have_their_time_in_seconds(tmp_path: Path) -> None:
    header = b"reviewerID,asin,overall,unixReviewTime\n"
    content = header + f"U,P,5.0,{TIME // 1000}\nV,P,5.0,{TIME}\nW,P,,".encode()
    rows, rejects, _ = parse(tmp_path / "x.csv", content)
    assert [(row["timestamp"], row["rating"]) for row in rows] == [(TIME, 5.0)]
    assert rejects == [(3, "absurd timestamp"), (4, "missing timestamp")]


def record(user: str, text: str = "") -> str:
    return f'{user},P,1,{TIME},"{text}"'


@pytest.mark.parametrize("block_size", [3, 40, 1 << 20])
def test_a_record_of_several_lines_counts_once_and_a_broken_one_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_size: int
) -> None:
    """Each record starts on the line of its number."""
    monkeypatch.setattr(csv_records, "read_blocks", partial(read_blocks, block_size=block_size))
    lines = [
        "user_id,parent_asin,rating,timestamp,title",
        *record("u2", "two\nlines").split("\n"),
        *record("u4", '""quoted"", \n\nafter a blank line').split("\n"),
        f'u7,"P,1,{TIME},an open quote',
        record("u8"),
        f'u9,5" pipe,1,{TIME},a quote inside',
        f'u10,"P"x,1,{TIME},text after a quote',
        record("u11", "last\r\none"),
    ]
    rows, rejects, texts = parse(tmp_path / "x.csv", "\n".join(lines).encode())
    assert {row["user_id"]: row["line"] for row in rows} == {
        f"u{line}": line for line in (2, 4, 8, 9, 11)
    }
    assert rejects == [(7, "broken CSV"), (10, "broken CSV")]
    assert texts["P"]["title"] == "two lines"


@pytest.mark.parametrize("block_size", [100, 1 << 20])
def test_an_open_quote_rejects_one_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_size: int
) -> None:
    monkeypatch.setattr(csv_records, "read_blocks", partial(read_blocks, block_size=block_size))
    monkeypatch.setattr(csv_records, "MAX_RECORD_BYTES", 300)
    lines = [f"u{line},P,1,{TIME}" for line in range(2, 102)]
    lines[40] = f'u42,"P,1,{TIME}'
    lines[90] = f'u92,"P,1,{TIME}'
    rows, rejects, _ = parse(tmp_path / "x.csv", HEADER + "\n".join(lines).encode())
    assert [row["line"] for row in rows] == [n for n in range(2, 102) if n not in (42, 92)]
    assert rejects == [(42, "broken CSV"), (92, "broken CSV")]


FIELDS = st.sampled_from(
    ["U", "P", str(TIME), "", '"', '""', ",", "\n", "\r", "\r\n", " ", "é", "\0", "x,y"]
)


@settings(deadline=None)
@given(cells=st.lists(st.lists(FIELDS, max_size=9), max_size=9), quoted=st.booleans())
def test_arrow_and_csv_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], quoted: bool
) -> None:
    """With Arrow, and with every record read one by one."""
    text = "\n".join("".join(line) for line in cells)
    if quoted:
        text = text.join((f'U,P,1,{TIME}\n"', f'",P,,{TIME}\nV,"Q",2,{TIME}'))
    file = tmp_path_factory.mktemp("csv") / "x.csv"
    in_bulk = parse(file, HEADER + text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_reader, "is_regular", lambda block, _: np.zeros(len(block), dtype=bool))
        assert parse(file, HEADER + text.encode()) == in_bulk


def test_item_texts_from_csv(tmp_path: Path) -> None:
    file = tmp_path / "meta_x.csv"
    file.write_text('asin;Title;store;extra\nA;"Lamp;\nred";Lux;1\n;no id;;\nB;;Lux;\n')
    (block,) = parse_csv_items(file)
    assert block.rows.select(["item_id", "title", "brand"]).to_pylist() == [
        {"item_id": "A", "title": "Lamp; red", "brand": "Lux"},
        {"item_id": "B", "title": None, "brand": "Lux"},
    ]
    assert block.rejects.select(["line", "reason"]).to_pylist() == [
        {"line": 4, "reason": "missing parent_asin"}
    ]
    file.write_text("asin,name\nA,Lamp\n")
    with pytest.raises(DataError, match="no column 'title'"):
        list(parse_csv_items(file))
