"""Generated lines of JSON: regular ones, and ones with unusual values, keys and shapes, all from a `Random`.

Each function returns an input and the kinds of its anomalies. `anomaly_rate` is between 0 and 1; it varies, since the
fast path of the review parser is only taken if most lines are regular.
"""

import json
from collections.abc import Callable
from random import Random

from reliability.fuzzing.mutations import mutate, splice

Made = tuple[bytes, list[str]]
Maker = Callable[[Random, float], Made]
TIMES = [1_500_000_000_000, 1_262_304_000_123, 805_852_800_000, 2_051_222_399_999]

# Values as they are written in JSON.
ODD_VALUES = {
    "null": "null", "true": "true", "zero": "0", "minus zero": "-0", "negative": "-1", "whole": "7",
    "decimal": "4.5", "seconds": "1500000000", "time as text": '"1500000000000"',
    "time as decimal": "1500000000000.0", "time as exponent": "15e11", "day before the first": "805852799999",
    "the end": "2051222400000", "64 bits": "9223372036854775807", "over 64 bits": "9223372036854775808",
    "30 digits": "1" * 30, "400 digits": "9" * 400, "5000 digits": "9" * 5000,
    "minus 5000 digits": "-" + "9" * 5000, "1e999": "1e999", "-1e999": "-1e999", "1e-400": "1e-400",
    "denormal": "5e-324", "largest": "1.7976931348623157e308", "long fraction": "0." + "3" * 400, "NaN": "NaN",
    "-NaN": "-NaN", "Infinity": "Infinity", "-Infinity": "-Infinity", "Inf": "Inf", "-Inf": "-Inf",
    "leading zero": "01", "plus": "+1", "bare point": "1.", "no zero": ".5", "hex": "0x10",
    "underscore": "1_000", "empty": '""', "space": '" "', "letter": '"x"', "unicode": '"Zoë 🎸 日本"',
    "escaped pair": '"\\ud83c\\udfb8"', "high surrogate": '"a\\ud800"', "low surrogate": '"\\udc00b"',
    "swapped surrogates": '"\\udfb8\\ud83c"', "two highs": '"\\ud83c\\ud83c\\udfb8"', "NUL": '"a\\u0000b"',
    "raw NUL": '"a\x00b"', "raw tab": '"a\tb"', "DEL": '"\x7f"', "escapes": '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
    "bad escape": '"\\x41"', "short escape": '"\\u12"', "line separators": '"a\u2028b\u2029c\u0085d"',
    "zero width": '"\u200b\ufeff\u200d"', "private use": '"\ue000"', "noncharacter": '"\uffff"',
    "quote": '"a"b"', "unclosed": '"a', "long text": '"' + "x" * 3000 + '"',
    "huge text": '"' + "ab " * 50_000 + '"', "list": "[]", "list of one": '["x"]',
    "list of blanks": '["", " ", "\\t", "y"]', "list of much": '[null, 1, {}, [], "z"]', "object": "{}",
    "object in object": '{"user_id": "V", "Brand": "Lux"}', "deep 100": "[" * 100 + "]" * 100,
    "deep 5000": "[" * 5000 + "]" * 5000, "deep objects": '{"a":' * 4000 + "1" + "}" * 4000,
    "deep, unclosed": "[" * 2000, "nothing": "", "word": "None", "comment": "1 /* one */",
    "single quotes": "'x'", "trailing comma": "[1,]",
}  # fmt: skip
RARE = {"huge text", "deep 5000", "deep objects", "5000 digits", "minus 5000 digits"}
COMMON = sorted(ODD_VALUES.keys() - RARE)
ODD_KEYS = ['"user\\u005fid"', '"user_id\\u0000"', '"User_ID"', '"user_id "', '""', '"\\ud800"', '"helpful_vote"',
            '"\u2028"', "user_id", "5", '"details"', '"a\x00"', '"x" ']  # fmt: skip


def _odd_value(draws: Random) -> tuple[str, str]:
    name = draws.choice(COMMON) if draws.random() < 0.995 else draws.choice(sorted(RARE))
    return name, ODD_VALUES[name]


def _review_fields(draws: Random) -> dict[str, str]:
    item = f'"B{draws.randrange(1000):09d}"'
    return {
        "rating": draws.choice(["5.0", "4.0", "1", "null"]),
        "title": draws.choice(['"Great"', '"Ça va 🎸"', '"so-so, \\"really\\""']),
        "text": '"' + "works well for my son " * draws.randrange(4) + '"',
        "images": draws.choice(["[]", '[{"small": "https://x/y.jpg", "n": 1.5}]']),
        "asin": item,
        "parent_asin": draws.choice([item, item, item, "null"]),
        "user_id": f'"AE{draws.randrange(1000):026d}"',
        "timestamp": str(draws.choice(TIMES) + draws.randrange(1000) - 500),
        "helpful_vote": str(draws.randrange(5)),
        "verified_purchase": draws.choice(["true", "false"]),
    }


def _item_fields(draws: Random) -> dict[str, str]:
    return {
        "main_category": draws.choice(['"Toys"', "null", '""']),
        "title": draws.choice(['"Desk \\n lamp"', '"Lamp"', '"灯"']),
        "average_rating": "4.3",
        "description": draws.choice(['["Bright.", "Second."]', "[]", '[""]', '"Bright."']),
        "store": draws.choice(['"Lux"', "null", '" "']),
        "categories": draws.choice(['["Lighting", "Lamps"]', "[]"]),
        "details": draws.choice(['{"Brand": "Lux", "Weight": "1 kg"}', "{}", '"none"']),
        "parent_asin": f'"B{draws.randrange(1000):09d}"',
    }


def _record(draws: Random, anomaly_rate: float, fields: dict[str, str], read: list[str]) -> Made:
    """A line of JSON; anomalies are more frequent in the fields `read` than in others."""
    kinds: list[str] = []
    if draws.random() < anomaly_rate * 0.6:
        for _ in range(draws.choice([1, 1, 2])):
            where = draws.choice(read) if draws.random() < 0.7 else draws.choice(list(fields))
            what, fields[where] = _odd_value(draws)
            kinds.append(f"{where}: {what}")
    pairs = [(json.dumps(key), value) for key, value in fields.items()]
    if draws.random() < anomaly_rate * 0.25:
        kinds.append(_reshape(draws, pairs))
    comma, colon = draws.choice([(", ", ": "), (", ", ": "), (",", ":"), ("\t,  ", " :\t")])
    text = "{" + comma.join(f"{key}{colon}{value}" for key, value in pairs) + "}"
    return text.encode("utf-8", "surrogatepass"), kinds


def _reshape(draws: Random, pairs: list[tuple[str, str]]) -> str:
    """Change the set of keys in place; returns the kind of change."""
    what = draws.choice(["no field", "equal keys", "odd key", "key escaped", "shuffled", "empty"])
    place = draws.randrange(len(pairs))
    key, value = pairs[place]
    if what == "no field":
        del pairs[place]
    elif what == "equal keys":
        pairs.append((key, draws.choice([value, '"V"', _odd_value(draws)[1]])))
    elif what == "odd key":
        pairs.insert(place, (draws.choice(ODD_KEYS), draws.choice(['"V"', _odd_value(draws)[1]])))
    elif what == "key escaped":
        pairs[place] = ('"' + "".join(f"\\u{ord(letter):04X}" for letter in key[1:-1]) + '"', value)
    elif what == "shuffled":
        draws.shuffle(pairs)
    else:
        pairs.clear()
    return what


JUNK = [
    b"", b" ", b"\t \x0b", b"null", b"[]", b"{}", b'"text"', b"7", b"NaN", b"\xef\xbb\xbf", b"\x00", b"}{",
    b"{}}", b"{{}", b"[" * 3000, b"user_id,parent_asin,timestamp", b"<html>", b"\x1f\x8b\x08",
    b'{"a":1}{"b":2}', b'{"a":1}\x00{}', b"\r",
]  # fmt: skip


def damaged(draws: Random, anomaly_rate: float, made: Made, other: Callable[[], Made]) -> Made:
    """Maybe replace the input by junk, splice it with another one, or mutate its bytes."""
    text, kinds = made
    chance = draws.random()
    if chance < anomaly_rate * 0.05:
        return draws.choice(JUNK) if draws.random() < 0.7 else draws.randbytes(20), ["junk"]
    if chance < anomaly_rate * 0.1:
        return splice(text, other()[0], draws), [*kinds, "splice"]
    if chance < anomaly_rate * 0.35:
        text, names = mutate(text, draws)
        return text, kinds + names
    return text, kinds


def review_line(draws: Random, anomaly_rate: float) -> Made:
    """A line of raw reviews."""

    def generate() -> Made:
        read = ["user_id", "parent_asin", "asin", "timestamp", "rating"]
        return _record(draws, anomaly_rate, _review_fields(draws), read)

    return damaged(draws, anomaly_rate, generate(), generate)


def item_line(draws: Random, anomaly_rate: float) -> Made:
    """A line of item metadata."""

    def generate() -> Made:
        read = ["parent_asin", "title", "description", "store", "details", "categories"]
        return _record(draws, anomaly_rate, _item_fields(draws), [*read, "main_category"])

    return damaged(draws, anomaly_rate, generate(), generate)
