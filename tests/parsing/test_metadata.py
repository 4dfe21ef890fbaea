"""Item texts from metadata lines, written out, and the rows and rejects of a file."""

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.parsing import metadata
from llmsrec.parsing.line_reader import read_blocks
from llmsrec.parsing.metadata import clean_text, item_texts, parse_item, parse_metadata


def test_all_texts_of_a_full_record() -> None:
    record = {
        "parent_asin": "P",
        "title": " Desk \n lamp ",
        "description": ["Bright.", "Second paragraph."],
        "store": "Lux",
        "main_category": "Home",
        "categories": ["Lighting", "Lamps"],
        "details": {"Brand": "Not this one"},
    }
    expected = {
        "item_id": "P", "title": "Desk lamp", "description": "Bright.", "brand": "Lux", "category": "Home"
    }  # fmt: skip
    assert item_texts(record) == (expected, None)


def test_missing_or_mistyped_texts_are_null() -> None:
    empty = {"title": None, "description": None, "brand": None, "category": None}
    for record in (
        {},
        {"title": "", "description": [], "store": None, "main_category": None, "categories": []},
        {"title": 5, "description": {"a": 1}, "details": "none", "categories": [None, 3, " "]},
    ):
        assert item_texts({"parent_asin": "P", **record}) == ({"item_id": "P", **empty}, None)


def test_brand_and_category_have_a_second_source() -> None:
    record = {"parent_asin": "P", "details": {"Brand": "Lux"}, "categories": ["", "Lamps"]}
    for first in ({}, {"store": " ", "main_category": " "}, {"store": 5, "main_category": 5}):
        texts, _ = item_texts({**record, **first})
        assert texts is not None
        assert (texts["brand"], texts["category"]) == ("Lux", "Lamps")


def test_items_of_2014_and_2018_are_read() -> None:
    of_2014 = b"{'asin': 'A', 'title': 'it\\'s', 'brand': 'Lux', 'categories': [['Toys', 'Dolls']], 'salesRank': None}"
    of_2018 = (
        b'{"asin": "B", "title": "Doll", "brand": "Lux", "main_cat": "Toys", "category": ["Dolls"]}'
    )
    for line, item, title in ((of_2014, "A", "it's"), (of_2018, "B", "Doll")):
        expected = {
            "item_id": item,
            "title": title,
            "description": None,
            "brand": "Lux",
            "category": "Toys",
        }
        assert parse_item(line) == (expected, None)


@pytest.mark.parametrize(
    ("item_id", "reason"),
    [
        (None, "missing parent_asin"),
        ("", "missing parent_asin"),
        (5, "mistyped parent_asin"),
        (["P"], "mistyped parent_asin"),
        (
            "\ud800",
            "mistyped parent_asin",
        ),  # not valid Unicode: neither Arrow nor Parquet can store it
    ],
)
def test_an_item_without_an_id_is_a_reject(item_id: Any, reason: str) -> None:
    assert item_texts({"parent_asin": item_id, "title": "Lamp"}) == (None, reason)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("one", "one"),
        (["", "  ", "two", "three"], "two"),
        ("a\tb\r\n\u2028c", "a b c"),
        ("a\u200bb\x00c\ufeff", "abc"),  # zero width and control characters
        ("\u200b \u200b", None),
        ("half \ud800 a pair", "half ? a pair"),
        ("Zoë 🎸 日本", "Zoë 🎸 日本"),
        (None, None),
        (7, None),
        ({"a": "b"}, None),
    ],
)
def test_clean_text_is_one_printable_line_or_none(value: Any, text: str | None) -> None:
    assert clean_text(value) == text


@settings(deadline=None)
@given(st.text() | st.text(" \u200b\n\ud800a"))
def test_clean_text_is_printable_single_spaced_and_idempotent(value: str) -> None:
    text = clean_text(value)
    assert text != ""
    if text is not None:
        assert text.isprintable()
        assert text == text.strip()
        assert "  " not in text
        assert clean_text(text) == text


@pytest.mark.parametrize("block_size", [5, 1 << 20])
def test_every_line_of_a_file_is_a_row_or_a_reject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_size: int
) -> None:
    monkeypatch.setattr(metadata, "read_blocks", partial(read_blocks, block_size=block_size))
    lines = [
        json.dumps({"parent_asin": "P", "title": "Lamp", "price": float("nan")}).encode(),
        b"",
        b'{"parent_asin": "Q", ',
        b'["Q"]',
        b'{"title": "no id"}',
        b'{"parent_asin": "\\udfff"}',
        b'{"parent_asin": "\xff"}',
        b'{"parent_asin": "P", "title": "\\ud800"}',
    ]
    file = tmp_path / "meta_x.jsonl.gz"
    file.write_bytes(gzip.compress(b"\r\n".join(lines)))
    blocks = list(parse_metadata(file))
    items = [item for block in blocks for item in block.rows.to_pylist()]
    assert [(item["item_id"], item["title"]) for item in items] == [("P", "Lamp"), ("P", "?")]
    rejects = [reject for block in blocks for reject in block.rejects.to_pylist()]
    assert [(reject["file"], reject["line"], reject["reason"]) for reject in rejects] == [
        ("meta_x.jsonl.gz", 3, "broken JSON"),
        ("meta_x.jsonl.gz", 4, "not an object"),
        ("meta_x.jsonl.gz", 5, "missing parent_asin"),
        ("meta_x.jsonl.gz", 6, "mistyped parent_asin"),
        ("meta_x.jsonl.gz", 7, "invalid UTF-8"),
    ]
