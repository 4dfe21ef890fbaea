"""CSV: headers, rejects and item texts, written out."""

import gzip
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from llmsrec.parsing.csv_reviews import parse_csv

from llmsrec.core.errors import DataError
from llmsrec.parsing import csv_reviews
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
    blocks = list(parse_csv(file, DATES))
    texts = {item: text for block in reversed(blocks) for item, text in block.texts.items()}
    rows = [row for block in blocks for row in block.rows.to_pylist()]
    rejects = [reject for block in blocks for reject in block.rejects.to_pylist()]
    lines = sum(block.num_lines - block.num_blank for block in blocks)
    assert lines == len(rows) + len(rejects)
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


@pytest.mark.parametrize("item", ["item", "item_id", "parent_asin"])
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
        (b"U,P,1,1500000000", "absurd timestamp"),
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
    rows, rejects, _ = parse(tmp_path / "x.csv", HEADER + f"\nU,P,1,{TIME}\n  \n".encode())
    assert [row["line"] for row in rows] == [3]
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
    monkeypatch.setattr(csv_reviews, "read_blocks", partial(read_blocks, block_size=block_size))
    content = gzip.compress(HEADER + f"U,P,1,{TIME}\nbad\nV,Q,2,{TIME}".encode())
    rows, rejects, _ = parse(tmp_path / "x.csv.gz", content)
    assert [(row["line"], row["user_id"]) for row in rows] == [(2, "U"), (4, "V")]
    assert rejects == [(3, "wrong number of columns")]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"user_id,parent_asin,rating", "no column 'timestamp'"),
        (b"parent_asin,timestamp", "no column 'user_id'"),
        (b"user_id,asin,timestamp", "no column 'parent_asin'"),
        (b"U,P,4.0,1500000000000", "no column 'user_id'"),  # data from the first line on
        (b"", "no column"),
        (b"user_id,caf\xe9,timestamp", "cannot be read"),
    ],
)
def test_an_invalid_header_is_an_error_that_names_the_file(
    tmp_path: Path, header: bytes, message: str
) -> None:
    file = tmp_path / "some.csv"
    file.write_bytes(header + b"\n")
    with pytest.raises(DataError, match=message) as caught:
        list(parse_csv(file, DATES))
    assert "some.csv, line 1" in str(caught.value)
