"""What becomes of a line, written a second time from the rules; it shares no code with llmsrec.

The rules: README ("Use your own data"), the docstrings of llmsrec/parsing, specification 1. JSON and CSV are read by
the standard library, in which only the treatment of errors is ours; letters are judged by their Unicode category.
"""

import csv
import json
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

FIRST, END = (
    int(datetime(*day, tzinfo=UTC).timestamp()) * 1000 for day in ((1995, 7, 16), (2035, 1, 1))
)
REASONS = {
    "invalid UTF-8", "broken JSON", "broken CSV", "not an object", "wrong number of columns",
    *(f"{what} {field}" for what in ("missing", "mistyped") for field in ("user_id", "parent_asin", "timestamp")),
    "absurd timestamp",
}  # fmt: skip
DEEP = 300  # nesting of which Python's reader and Arrow's may think differently
MANY_DIGITS = 4000  # Python converts at most 4,300
BLANK = b" \t\n\r\x0b\x0c"
TEXTS = ("title", "description", "brand", "category")
SHORT_NAMES = {"user": "user_id", "item": "parent_asin", "item_id": "parent_asin"}
SENTINEL = 1.5e-77  # replaces literals that only Arrow reads
ARROW_ONLY = re.compile(rb"(?<=[:,\[ \t])-?(?:Inf(?!inity)|(?<=-)NaN)")


@dataclass(frozen=True)
class Verdict:
    """A row or a reason; neither for a blank line, and either is right where both are given.

    `loose`: the line is so deeply nested that the two JSON readers may differ."""

    row: dict[str, Any] | None = None
    reason: str | None = None
    texts: dict[str, str | None] | None = None
    loose: bool = False


class Rejected(Exception):
    """Carries the reason."""


def review(line: bytes) -> Verdict:
    """Of a raw review. Arrow reads `Inf` and `-NaN` in unused fields, which are not JSON."""
    if line.count(b"[") + line.count(b"{") > DEEP:
        return Verdict(loose=True)
    verdict = _judge(line, _interaction)
    if verdict.reason == "broken JSON" and ARROW_ONLY.search(line):
        replaced = _judge(ARROW_ONLY.sub(str(SENTINEL).encode(), line), _unless_sentinel)
        return Verdict(replaced.row, verdict.reason)
    return verdict


def item(line: bytes) -> Verdict:
    """Of a line of metadata."""
    return _judge(line, _item)


def csv_row(line: bytes, columns: Sequence[str]) -> Verdict:
    """Of a line of CSV under a header."""

    def interaction(fields: list[str]) -> dict[str, Any]:
        if len(fields) != len(columns):
            raise Rejected("wrong number of columns")
        record.update(zip(columns, fields, strict=True))
        time, rating = _time(record["timestamp"]), _decimal(record.get("rating", ""))
        return _interaction({**record, "timestamp": time, "rating": rating})

    record: dict[str, str] = {}
    verdict = _judge(line, interaction, _fields)
    if verdict.row is None or not record.get("title"):
        return verdict
    return Verdict(verdict.row, texts={name: shown(record.get(name)) for name in TEXTS})


def csv_columns(line: bytes) -> list[str] | None:
    """Of a header; None if it is invalid."""
    try:
        fields = next(csv.reader([line.decode("utf-8-sig")]))
    except (UnicodeDecodeError, csv.Error):
        return None
    names = [SHORT_NAMES.get(name, name) for name in fields]
    return names if {"user_id", "parent_asin", "timestamp"} <= set(names) else None


def _object(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError):
        raise Rejected("broken JSON") from None
    if not isinstance(record, dict):
        raise Rejected("not an object")
    return record


def _fields(text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error:
        raise Rejected("broken CSV") from None


def _judge(
    line: bytes, rule: Callable[[Any], dict[str, Any]], read: Callable[[str], Any] = _object
) -> Verdict:
    if not line.strip(BLANK):
        return Verdict()
    try:
        return Verdict(rule(read(line.decode("utf-8"))))
    except UnicodeDecodeError:
        return Verdict(reason="invalid UTF-8")
    except Rejected as rejected:
        return Verdict(reason=str(rejected))


def _integer(digits: str) -> int:
    if len(digits) > MANY_DIGITS:
        return -(10**MANY_DIGITS) if digits.startswith("-") else 10**MANY_DIGITS
    return int(digits)


def _unless_sentinel(record: dict[str, Any]) -> dict[str, Any]:
    if SENTINEL in (record.get("rating"), record.get("asin")):
        raise Rejected("broken JSON")
    return _interaction(record)


def _interaction(record: dict[str, Any]) -> dict[str, Any]:
    user = _name("user_id", record.get("user_id"))
    first = record.get("parent_asin")
    item_id = _name("parent_asin", record.get("asin") if first is None else first)
    time = record.get("timestamp")
    if time is None:
        raise Rejected("missing timestamp")
    if type(time) is not int:
        raise Rejected("mistyped timestamp")
    if time < FIRST or time >= END:
        raise Rejected("absurd timestamp")
    rating = _number(record.get("rating"))
    return {"user_id": user, "item_id": item_id, "timestamp": time, "rating": rating}


def _name(field: str, value: Any) -> str:
    if value is None or value == "":
        raise Rejected(f"missing {field}")
    if type(value) is not str or any(unicodedata.category(letter) == "Cs" for letter in value):
        raise Rejected(f"mistyped {field}")
    return value


def _number(value: Any) -> float | None:
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _item(record: dict[str, Any]) -> dict[str, Any]:
    details = record.get("details")
    inner = details.get("Brand") if isinstance(details, dict) else None
    return {
        "item_id": _name("parent_asin", record.get("parent_asin")),
        "title": shown(record.get("title")),
        "description": shown(record.get("description")),
        "brand": shown(record.get("store")) or shown(inner),
        "category": shown(record.get("main_category")) or shown(record.get("categories")),
    }


def shown(value: Any) -> str | None:
    """A text, or the first of several that is not blank, as one line of visible letters."""
    if type(value) is list:
        texts = (part for part in value if type(part) is str)
        value = next((text for text in texts if not all(map(_is_space, text))), None)
    if type(value) is not str:
        return None
    words = "".join(_letter(letter) for letter in value).split(" ")
    return " ".join(word for word in words if word) or None


@lru_cache(maxsize=100_000)
def _is_space(letter: str) -> bool:
    separates = unicodedata.bidirectional(letter) in ("WS", "B", "S")
    return separates or unicodedata.category(letter) == "Zs"


@lru_cache(maxsize=100_000)
def _letter(letter: str) -> str:
    """As it is shown: a space for any white space, nothing for what is invisible, ? for half a pair."""
    if _is_space(letter):
        return " "
    category = unicodedata.category(letter)
    if category == "Cs":
        return "?"
    return "" if category[0] in "CZ" else letter


def _time(text: str) -> int | None:
    if not text.strip():
        return None
    if not re.fullmatch(r"\s*[-+]?[0-9]+\s*", text):
        raise Rejected("mistyped timestamp")
    return _integer(text.strip())


def _decimal(text: str) -> float | None:
    plain = re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text)
    return float(text) if plain else None
