"""Raw `meta_` lines -> item texts: title, description, brand, category (SPEC 1, item 5)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from llmsrec.parsing.line_reader import read_blocks
from llmsrec.parsing.reviews import REJECTS, TEXT_KEPT, Parsed, Texts, is_text, parse_object

ITEMS = pa.schema(
    [
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("brand", pa.string()),
        ("category", pa.string()),
    ]
)


def parse_metadata(file: Path) -> Iterator[Parsed]:
    """The items of a file, block by block."""
    for block in read_blocks(file):
        rows: list[dict[str, Any]] = []
        rejects: list[dict[str, Any]] = []
        blank = 0
        for row in range(len(block)):
            line = block.line(row)
            if not line.strip():
                blank += 1
                continue
            record, reason = parse_object(line)
            item, reason = item_texts(record) if record is not None else (None, reason)
            if item is not None:
                rows.append(item)
            else:
                text = line.decode("utf-8", "replace")[:TEXT_KEPT]
                rejects.append(
                    {"file": file.name, "line": block.first + row, "reason": reason, "text": text}
                )
        yield Parsed(
            pa.Table.from_pylist(rows, ITEMS),
            pa.Table.from_pylist(rejects, REJECTS),
            len(block),
            blank,
        )


def item_texts(record: dict[str, Any]) -> tuple[Texts | None, str | None]:
    """What a prompt may say of an item; unknown texts are null."""
    item_id = record.get("parent_asin")
    if item_id is None or item_id == "":
        return None, "missing parent_asin"
    if not isinstance(item_id, str) or not is_text(item_id):
        return None, "mistyped parent_asin"
    details = record.get("details")
    brand = details.get("Brand") if isinstance(details, dict) else None
    return {
        "item_id": item_id,
        "title": clean(record.get("title")),
        "description": clean(record.get("description")),
        "brand": clean(record.get("store")) or clean(brand),
        "category": clean(record.get("main_category")) or clean(record.get("categories")),
    }, None


def clean(value: Any) -> str | None:
    """A text, or the first of several, on one line; None when there is none."""
    if isinstance(value, list):
        value = next((text for text in value if isinstance(text, str) and text.strip()), None)
    if not isinstance(value, str):
        return None
    text = value.encode("utf-8", "replace").decode("utf-8")
    shown = "".join(letter for letter in text if letter.isprintable() or letter.isspace())
    return " ".join(shown.split()) or None
