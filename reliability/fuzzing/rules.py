"""What becomes of a line, written a second time from the rules and sharing no code with llmsrec.

The rules: docs/howto/data.md, the docstrings of llmsrec/parsing, SPEC 1. Here letters are judged by their Unicode
category, CSV by a hand-written reader, JSON by `json_reader`.
"""

import ast
import math
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from reliability.fuzzing.json_reader import NotJson, Reader

FIRST, END = (
    int(datetime(*day, tzinfo=UTC).timestamp()) * 1000 for day in ((1995, 7, 16), (2035, 1, 1))
)
REASONS = {
    "invalid UTF-8", "broken JSON", "broken CSV", "not an object", "wrong number of columns",
    *(f"{what} {field}" for what in ("missing", "mistyped") for field in ("user_id", "parent_asin", "timestamp")),
    *(f"timestamp in {unit}" for unit in ("seconds", "microseconds", "nanoseconds")), "absurd timestamp", "NUL byte",
}  # fmt: skip
DEEP = (
    300  # nesting of which Python's reader and Arrow's may think differently (reviews.py says so)
)
BLANK = b" \t\n\r\x0b\x0c"
USERS, ITEMS = ("user_id", "reviewerID", "user"), ("parent_asin", "asin", "item_id", "item")
BRANDS, CATEGORIES = ("store", "brand"), ("main_category", "main_cat", "categories", "category")


@dataclass(frozen=True)
class Verdict:
    """A row or a reason; neither for a blank line. `loose`: the two JSON readers may differ."""

    row: dict[str, Any] | None = None
    reason: str | None = None
    texts: dict[str, str | None] | None = None
    loose: bool = False


class Rejected(Exception):
    """Carries the reason."""


def review(line: bytes) -> Verdict:
    """Of a raw review."""
    return _judge(line, lambda record: Verdict(interaction(record)))


def item(line: bytes) -> Verdict:
    """Of a line of metadata."""
    return _judge(line, lambda record: Verdict(item_texts(record)))


def _judge(line: bytes, rule: Any) -> Verdict:
    if not line.strip(BLANK):
        return Verdict()
    reader = Reader()
    try:
        record = _object(decoded(line), reader)
        if not isinstance(record, dict):
            raise Rejected("not an object")
        verdict: Verdict = rule(record)
    except NotJson:
        verdict = Verdict(reason="broken JSON")
    except Rejected as rejected:
        verdict = Verdict(reason=str(rejected))
    loose = reader.depth > DEEP
    return Verdict(verdict.row, verdict.reason, loose=True) if loose else verdict


def _object(text: str, reader: Reader) -> Any:
    """JSON, or a dict in Python's notation, which Python itself reads."""
    try:
        return reader.read(text)
    except NotJson:
        if not text.startswith("{'"):
            raise
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise NotJson from None


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    for name in names:
        if record.get(name) is not None:
            return record[name]
    return None


def decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected("invalid UTF-8") from None


def interaction(record: dict[str, Any]) -> dict[str, Any]:
    user, item_id = (
        _name("user_id", _first(record, USERS)),
        _name("parent_asin", _first(record, ITEMS)),
    )
    time = record.get("timestamp")
    in_seconds = time is None
    if in_seconds:
        time = record.get("unixReviewTime")
    if time is None:
        raise Rejected("missing timestamp")
    if type(time) is not int:
        raise Rejected("mistyped timestamp")
    scales = (
        {"seconds": 1000.0, "microseconds": 1e-3, "nanoseconds": 1e-6} if abs(time) < 1e20 else {}
    )
    if in_seconds:
        time, scales = time * 1000, {}
    if time < FIRST or time >= END:
        units = [unit for unit, scale in scales.items() if FIRST <= time * scale < END]
        raise Rejected(f"timestamp in {units[0]}" if units else "absurd timestamp")
    rating = _number(_first(record, ("rating", "overall")))
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


def item_texts(record: dict[str, Any]) -> dict[str, Any]:
    details = record.get("details")
    inner = details.get("Brand") if isinstance(details, dict) else None
    return {
        "item_id": _name("parent_asin", _first(record, ITEMS)),
        "title": shown(record.get("title")),
        "description": shown(record.get("description")),
        "brand": _any([record.get(name) for name in BRANDS] + [inner]),
        "category": _any([record.get(name) for name in CATEGORIES]),
    }


def _any(values: list[Any]) -> str | None:
    return next(filter(None, map(shown, values)), None)


def shown(value: Any) -> str | None:
    """A text, or the first of several that is not blank, as one line of visible letters."""
    if type(value) is list and value and type(value[0]) is list:
        (value, *_) = value
    if type(value) is list:
        value = next((part for part in value if type(part) is str and _tokens(part)), None)
    if type(value) is not str:
        return None
    words = "".join(_letter(letter) for letter in value).split(" ")
    return " ".join(word for word in words if word) or None


def _tokens(text: str) -> bool:
    return any(not _is_space(letter) for letter in text)


@lru_cache(maxsize=100_000)
def _is_space(letter: str) -> bool:
    separates = unicodedata.bidirectional(letter) in ("WS", "B", "S")
    return separates or unicodedata.category(letter) == "Zs"


@lru_cache(maxsize=100_000)
def _letter(letter: str) -> str:
    """As it shows: a space for any white space, nothing for what is invisible, ? for half a pair."""
    if _is_space(letter):
        return " "
    category = unicodedata.category(letter)
    if category == "Cs":
        return "?"
    return "" if category[0] in "CZ" else letter
