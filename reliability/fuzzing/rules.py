"""What becomes of a line, written a second time from the rules and sharing no code with llmsrec.

The rules: README ("Use it on your shop"), the docstrings of llmsrec/data, SPEC 1. Here letters are judged by their
Unicode category, CSV by a hand-written reader, JSON by `json_reader`.
"""

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from reliability.fuzzing.json_reader import HUGE, MANY_DIGITS, NotJson, Reader

FIRST, END = (
    int(datetime(*day, tzinfo=UTC).timestamp()) * 1000 for day in ((1995, 7, 16), (2035, 1, 1))
)
REASONS = {
    "invalid UTF-8", "broken JSON", "broken CSV", "not an object", "wrong number of columns",
    *(f"{what} {field}" for what in ("missing", "mistyped") for field in ("user_id", "parent_asin", "timestamp")),
    "absurd timestamp",
}  # fmt: skip
DEEP = (
    300  # nesting of which Python's reader and Arrow's may think differently (reviews.py says so)
)
LONGEST_FIELD = 131_072  # of CSV, the standard library's
BLANK = b" \t\n\r\x0b\x0c"
TEXTS = ("title", "description", "brand", "category")
SHORT_NAMES = {"user": "user_id", "item": "parent_asin", "item_id": "parent_asin"}


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
    return _judge(line, lambda record: Verdict(_interaction(record)))


def item(line: bytes) -> Verdict:
    """Of a line of metadata."""
    return _judge(line, lambda record: Verdict(_item(record)))


def _judge(line: bytes, rule: Any) -> Verdict:
    if not line.strip(BLANK):
        return Verdict()
    reader = Reader()
    try:
        record = reader.read(_decoded(line))
        if not isinstance(record, dict):
            raise Rejected("not an object")
        verdict: Verdict = rule(record)
    except NotJson:
        verdict = Verdict(reason="broken JSON")
    except Rejected as rejected:
        verdict = Verdict(reason=str(rejected))
    loose = reader.depth > DEEP
    return Verdict(verdict.row, verdict.reason, loose=True) if loose else verdict


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise Rejected("invalid UTF-8") from None


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


def csv_columns(line: bytes) -> list[str] | None:
    """Of a header; None if it will not do."""
    try:
        fields = _fields(_decoded(line).removeprefix("\ufeff"), strict=False)
    except Rejected:
        return None
    names = [SHORT_NAMES.get(name, name) for name in fields]
    return names if {"user_id", "parent_asin", "timestamp"} <= set(names) else None


def csv_row(line: bytes, columns: Sequence[str]) -> Verdict:
    """Of a line of CSV under a header."""
    if not line.strip(BLANK):
        return Verdict()
    try:
        fields = _fields(_decoded(line), strict=True)
        if len(fields) != len(columns):
            raise Rejected("wrong number of columns")
        record: dict[str, Any] = {}
        for name, value in zip(columns, fields, strict=True):
            record[name] = value
        record["timestamp"] = _time(record["timestamp"])
        record["rating"] = _decimal(record.get("rating", ""))
        row = _interaction(record)
    except Rejected as rejected:
        return Verdict(reason=str(rejected))
    texts = {name: shown(record.get(name)) for name in TEXTS} if record.get("title") else None
    return Verdict(row, texts=texts)


def _time(text: str) -> int | None:
    if not text.strip():
        return None
    found = re.fullmatch(r"\s*([-+]?)([0-9]+)\s*", text)
    if not found:
        raise Rejected("mistyped timestamp")
    return int(found[1] + found[2]) if len(found[2]) < MANY_DIGITS else HUGE


def _decimal(text: str) -> float | None:
    plain = re.fullmatch(r"\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*", text)
    return float(text) if plain else None


def _fields(line: str, *, strict: bool) -> list[str]:
    """Fields between commas; one that starts with a quote ends with one, and has its own quotes doubled."""
    fields, place = [], 0
    while True:
        if line[place : place + 1] == '"':
            value, place = _quoted(line, place + 1, strict=strict)
        else:
            end = line.find(",", place)
            value, place = (line[place:], len(line)) if end < 0 else (line[place:end], end)
            if "\r" in value:
                raise Rejected("broken CSV")
        if len(value) > LONGEST_FIELD:
            raise Rejected("broken CSV")
        fields.append(value)
        if place >= len(line):
            return fields
        place += 1


def _quoted(line: str, place: int, *, strict: bool) -> tuple[str, int]:
    parts: list[str] = []
    while True:
        end = line.find('"', place)
        if end < 0:
            if strict:
                raise Rejected("broken CSV")
            return "".join([*parts, line[place:]]), len(line)
        parts.append(line[place:end])
        place = end + 1
        if line[place : place + 1] != '"':
            break
        parts.append('"')
        place += 1
    if line[place : place + 1] in ("", ","):
        return "".join(parts), place
    if strict:
        raise Rejected("broken CSV")
    end = line.find(",", place)
    tail = line[place:] if end < 0 else line[place:end]
    if "\r" in tail:
        raise Rejected("broken CSV")
    return "".join(parts) + tail, len(line) if end < 0 else end
