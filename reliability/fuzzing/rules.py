"""What becomes of a line, written a second time from the rules; it shares no code with llmsrec.

The rules: docs/howto/data.md, the docstrings of llmsrec/parsing, specification 1. JSON and CSV (`csv_rules`) are read
by the standard library, in which only the treatment of errors is ours; letters are judged by their Unicode category.
"""

import ast
import json
import math
import re
import unicodedata
from collections.abc import Callable
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
    *(f"timestamp in {unit}" for unit in ("seconds", "microseconds", "nanoseconds")), "absurd timestamp", "NUL byte",
}  # fmt: skip
DEEP = 300  # nesting of which Python's reader and Arrow's may think differently
MANY_DIGITS = 4000  # Python converts at most 4,300
BLANK = b" \t\n\r\x0b\x0c"
USERS, ITEMS = ("user_id", "reviewerID", "user"), ("parent_asin", "asin", "item_id", "item")
RATINGS = ("rating", "overall")
BRANDS, CATEGORIES = ("store", "brand"), ("main_category", "main_cat", "categories", "category")
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
    verdict = _judge(line, interaction)
    if verdict.reason == "broken JSON" and ARROW_ONLY.search(line):
        replaced = _judge(ARROW_ONLY.sub(str(SENTINEL).encode(), line), _unless_sentinel)
        return Verdict(replaced.row, verdict.reason)
    return verdict


def item(line: bytes) -> Verdict:
    """Of a line of metadata."""
    return _judge(line, item_texts)


def _object(text: str) -> dict[str, Any]:
    """JSON, or a dict in Python's notation."""
    try:
        record = json.loads(text, parse_int=integer)
    except (ValueError, RecursionError):
        try:
            record = ast.literal_eval(text if text.startswith("{'") else "")
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise Rejected("broken JSON") from None
    if not isinstance(record, dict):
        raise Rejected("not an object")
    return record


def _judge(line: bytes, rule: Callable[[dict[str, Any]], dict[str, Any]]) -> Verdict:
    if not line.strip(BLANK):
        return Verdict()
    try:
        return Verdict(rule(_object(line.decode("utf-8"))))
    except UnicodeDecodeError:
        return Verdict(reason="invalid UTF-8")
    except Rejected as rejected:
        return Verdict(reason=str(rejected))


def integer(digits: str) -> int:
    """The integer; one of too many digits for Python becomes another that is as absurd."""
    if len(digits) > MANY_DIGITS:
        return -(10**MANY_DIGITS) if digits.startswith("-") else 10**MANY_DIGITS
    return int(digits)


def _unless_sentinel(record: dict[str, Any]) -> dict[str, Any]:
    if SENTINEL in (_first(record, RATINGS), record.get("asin")):
        raise Rejected("broken JSON")
    return interaction(record)


def _first(record: dict[str, Any], names: tuple[str, ...]) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def interaction(record: dict[str, Any]) -> dict[str, Any]:
    """The row of a record; raises Rejected."""
    user = _name("user_id", _first(record, USERS))
    item_id = _name("parent_asin", _first(record, ITEMS))
    time = record.get("timestamp")
    in_seconds = time is None
    if in_seconds:
        time = record.get("unixReviewTime")
    if time is None:
        raise Rejected("missing timestamp")
    if type(time) is not int:
        raise Rejected("mistyped timestamp")
    if in_seconds:
        time *= 1000
    elif not FIRST <= time < END:
        units = {"seconds": time * 1000, "microseconds": time // 1000, "nanoseconds": time // 10**6}
        for unit, milliseconds in units.items():
            if FIRST <= milliseconds < END:
                raise Rejected(f"timestamp in {unit}")
    if not FIRST <= time < END:
        raise Rejected("absurd timestamp")
    rating = _number(_first(record, RATINGS))
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
    """The texts of an item; raises Rejected."""
    details = record.get("details")
    inner = details.get("Brand") if isinstance(details, dict) else None
    return {
        "item_id": _name("parent_asin", _first(record, ITEMS)),
        "title": shown(record.get("title")),
        "description": shown(record.get("description")),
        "brand": _any(*map(record.get, BRANDS), inner),
        "category": _any(*map(record.get, CATEGORIES)),
    }


def _any(*values: Any) -> str | None:
    return next(filter(None, map(shown, values)), None)


def shown(value: Any) -> str | None:
    """A text, or the first of several that is not blank, as one line of visible letters."""
    if type(value) is list and value and type(value[0]) is list:
        value = value[0]
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
