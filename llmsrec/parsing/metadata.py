"""Raw `meta_` lines -> item texts: title, description, brand, category (specification 1)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from llmsrec.parsing.line_reader import Parsed, ParsedBlock, parse_lines, read_blocks
from llmsrec.parsing.reviews import ITEM_NAMES, first_of, id_problem, parse_object

COLUMNS = ("item_id", "title", "description", "brand", "category")
ITEM_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])
BRAND_NAMES = ("store", "brand")  # then the brand in `details`
CATEGORY_NAMES = ("main_category", "main_cat", "categories", "category")
TEXT_NAMES = ("title", "description", *BRAND_NAMES, *CATEGORY_NAMES)


def parse_metadata(file: Path) -> Iterator[ParsedBlock]:
    """The items of a file, block by block."""
    for block in read_blocks(file):
        yield parse_lines(block, range(len(block)), file.name, parse_item, ITEM_SCHEMA)


def parse_item(line: bytes) -> Parsed:
    """(texts, None) or (None, reason)."""
    record, reason = parse_object(line)
    return (None, reason) if record is None else item_texts(record)


def item_texts(record: dict[str, Any]) -> Parsed:
    """(texts, None) or (None, reason); a text that the record lacks is None."""
    item_id = first_of(record, ITEM_NAMES)
    reason = id_problem("parent_asin", item_id)
    if reason:
        return None, reason
    details = record.get("details")
    brands = [record.get(name) for name in BRAND_NAMES]
    brands.append(details.get("Brand") if isinstance(details, dict) else None)
    return {
        "item_id": item_id,
        "title": clean_text(record.get("title")),
        "description": clean_text(record.get("description")),
        "brand": _first_text(brands),
        "category": _first_text([record.get(name) for name in CATEGORY_NAMES]),
    }, None


def _first_text(values: list[Any]) -> str | None:
    return next((text for value in values if (text := clean_text(value))), None)


def clean_text(value: Any) -> str | None:
    """A string, or the first non-blank one of a list, printable and on one line; None if there is none."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        value = value[0]  # the categories of 2014 are a list of paths
    if isinstance(value, list):
        value = next((text for text in value if isinstance(text, str) and text.strip()), None)
    if not isinstance(value, str):
        return None
    text = value.encode("utf-8", "replace").decode("utf-8")
    if not text.isprintable():
        text = "".join(char for char in text if char.isprintable() or char.isspace())
    return " ".join(text.split()) or None
