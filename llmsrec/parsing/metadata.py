"""Raw `meta_` lines -> item texts: title, description, brand, category (specification 1)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from llmsrec.parsing.line_reader import ItemTexts, ParsedBlock, parse_lines, read_blocks
from llmsrec.parsing.reviews import is_valid_unicode, parse_object

COLUMNS = ("item_id", "title", "description", "brand", "category")
ITEM_SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])


def parse_metadata(file: Path) -> Iterator[ParsedBlock]:
    """The items of a file, block by block."""
    for block in read_blocks(file):
        yield parse_lines(block, range(len(block)), file.name, parse_item, ITEM_SCHEMA)


def parse_item(line: bytes) -> tuple[ItemTexts | None, str | None]:
    """(texts, None) or (None, reason)."""
    record, reason = parse_object(line)
    return (None, reason) if record is None else item_texts(record)


def item_texts(record: dict[str, Any]) -> tuple[ItemTexts | None, str | None]:
    """(texts, None) or (None, reason); a text that the record lacks is None."""
    item_id = record.get("parent_asin")
    if item_id is None or item_id == "":
        return None, "missing parent_asin"
    if not isinstance(item_id, str) or not is_valid_unicode(item_id):
        return None, "mistyped parent_asin"
    details = record.get("details")
    brand = details.get("Brand") if isinstance(details, dict) else None
    return {
        "item_id": item_id,
        "title": clean_text(record.get("title")),
        "description": clean_text(record.get("description")),
        "brand": clean_text(record.get("store")) or clean_text(brand),
        "category": clean_text(record.get("main_category")) or clean_text(record.get("categories")),
    }, None


def clean_text(value: Any) -> str | None:
    """A string, or the first non-blank one of a list, printable and on one line; None if there is none."""
    if isinstance(value, list):
        value = next((text for text in value if isinstance(text, str) and text.strip()), None)
    if not isinstance(value, str):
        return None
    text = value.encode("utf-8", "replace").decode("utf-8")
    printable = "".join(char for char in text if char.isprintable() or char.isspace())
    return " ".join(printable.split()) or None
