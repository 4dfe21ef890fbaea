"""Generated files: raw reviews, item metadata, CSV, plain text and gzip, regular, unusual and damaged.

A file is a function of a `Random`. Of the files with lines a third is nearly regular, since the fast path of the review
parser is only taken if most lines are, a third is mixed, and a third has an anomaly in most lines.
"""

import gzip
import json
from collections.abc import Callable
from random import Random

from reliability.fuzzing.mutations import mutate, splice

Line = Callable[[Random, float], bytes]  # its share of anomalies is between 0 and 1
ANOMALY_RATES = (0.02, 0.3, 1.0)
NUMBERS_OF_LINES = (1, 30, 300)
TIMES = [1_500_000_000_000, 1_262_304_000_123, 805_852_800_000, 2_051_222_399_999]

# Values as they are written in JSON.
ODD_VALUES = [
    "null", "true", "0", "-0", "-1", "7", "4.5", "1500000000", '"1500000000000"', "1500000000000.0", "15e11",
    "805852799999", "2051222400000", "9223372036854775807", "9223372036854775808", "1" * 30, "9" * 400, "1e999",
    "-1e999", "1e-400", "5e-324", "1.7976931348623157e308", "0." + "3" * 400, "NaN", "-NaN", "Infinity", "-Infinity",
    "Inf", "-Inf", "01", "+1", "1.", ".5", "0x10", "1_000", '""', '" "', '"x"', '"Zoë 🎸 日本"', '"\\ud83c\\udfb8"',
    '"a\\ud800"', '"\\udc00b"', '"\\udfb8\\ud83c"', '"\\ud83c\\ud83c\\udfb8"', '"a\\u0000b"', '"a\x00b"', '"a\tb"',
    '"\x7f"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\x41"', '"\\u12"', '"a\u2028b\u2029c\u0085d"', '"\u200b\ufeff\u200d"',
    '"\ue000"', '"\uffff"', '"a"b"', '"a', '"' + "x" * 3000 + '"', "[]", '["x"]', '["", " ", "\\t", "y"]',
    '[null, 1, {}, [], "z"]', "{}", '{"user_id": "V", "Brand": "Lux"}', "[" * 100 + "]" * 100, "[" * 2000, "", "None",
    "1 /* one */", "'x'", "[1,]",
]  # fmt: skip
HUGE_VALUES = [
    '"' + "ab " * 50_000 + '"', "[" * 5000 + "]" * 5000, '{"a":' * 4000 + "1" + "}" * 4000, "9" * 5000,
    "-" + "9" * 5000,
]  # fmt: skip
ODD_KEYS = ['"user\\u005fid"', '"user_id\\u0000"', '"User_ID"', '"user_id "', '""', '"\\ud800"', '"helpful_vote"',
            '"\u2028"', "user_id", "5", '"details"', '"a\x00"', '"x" ']  # fmt: skip
JUNK = [
    b"", b" ", b"\t \x0b", b"null", b"[]", b"{}", b'"text"', b"7", b"NaN", b"\xef\xbb\xbf", b"\x00", b"}{",
    b"{}}", b"{{}", b"[" * 3000, b"user_id,parent_asin,timestamp", b"<html>", b"\x1f\x8b\x08",
    b'{"a":1}{"b":2}', b'{"a":1}\x00{}', b"\r",
]  # fmt: skip

ODD_CELLS = [
    "", " ", "0", "1500000000", "1500000000000.0", "15e11", "2017-07-14", " 1500000000000 ", "+1500000000000",
    "1_500_000_000_000", "\u0661\u0665" + "\u0660" * 11, "\uff11\uff15" + "\uff10" * 11, "9" * 400, "9" * 5000, "nan",
    "-Infinity", "1e999", "1_0.5", "0x1p3", '"a"', '"a,b"', '"a ""b"""', '""', 'a"b', '"a"b', '"a', '"""', ' "a"',
    "a,b", "a;b", "a\tb", "a\rb", '"a\rb"', "a\x00b", "\ufeffa", "\u200b", "a\u2028b", "a\u0085b", "Zoë 🎸 日本",
    "=1+1", "x" * 3000, "a\\,b", "\uffff",
]  # fmt: skip
TOO_LONG = "y" * 140_000  # for the standard library's CSV reader
CELLS: dict[str, Callable[[Random], str]] = {
    "user": lambda draws: f"AE{draws.randrange(1000):026d}",
    "item": lambda draws: f"B{draws.randrange(1000):09d}",
    "time": lambda draws: str(draws.choice(TIMES) + draws.randrange(1000) - 500),
    "rating": lambda draws: draws.choice(["5.0", "4", "", "1.5"]),
    "text": lambda draws: draws.choice(["Lamp", '"Lamp, ""small"""', "", "灯"]),
}
HEADERS = {
    "user_id,parent_asin,rating,timestamp": "user item rating time",
    "user,item,timestamp,title,brand,category,description,rating": "user item time text text text text rating",
    "timestamp,item_id,user": "time item user",
    "\ufefftimestamp,parent_asin,user_id,title": "time item user text",
    '"user_id","parent_asin","timestamp","rating"': "user item time rating",
    "user_id,parent_asin,rating,timestamp,other": "user item rating time user",
    "user_id,parent_asin,asin,timestamp,rating,title,store": "user item item time rating text text",
    "user_id,parent_asin,timestamp,,": "user item time text text",
}


def review_file(draws: Random) -> bytes:
    """Raw reviews."""
    return _lines(draws, _review_line)


def item_file(draws: Random) -> bytes:
    """Item metadata."""
    return _lines(draws, _item_line)


def csv_file(draws: Random) -> bytes:
    """A header and lines of its columns; one header in ten is damaged."""
    header, columns = draws.choice(list(HEADERS.items()))
    first = mutate(header.encode(), draws) if draws.random() < 0.1 else header.encode()
    return (
        first + b"\n" + _lines(draws, lambda draws, rate: _csv_line(draws, rate, columns.split()))
    )


def _lines(draws: Random, line: Line) -> bytes:
    rate, count = draws.choice(ANOMALY_RATES), draws.choice(NUMBERS_OF_LINES)
    end = draws.choice([b"\n", b"\n", b"\n", b"\r\n"])
    lines = [_damaged(draws, rate, line) for _ in range(count)]
    return end.join(lines) + draws.choice([end, b""])


def _damaged(draws: Random, anomaly_rate: float, line: Line) -> bytes:
    """A line, sometimes replaced by junk, spliced with another one, or mutated."""
    text, chance = line(draws, anomaly_rate), draws.random()
    if chance < anomaly_rate * 0.05:
        return draws.choice([*JUNK, draws.randbytes(20)])
    if chance < anomaly_rate * 0.1:
        return splice(text, line(draws, anomaly_rate), draws)
    return mutate(text, draws) if chance < anomaly_rate * 0.35 else text


def _review_line(draws: Random, anomaly_rate: float) -> bytes:
    item = f'"B{draws.randrange(1000):09d}"'
    fields = {
        "rating": draws.choice(["5.0", "4.0", "1", "null"]),
        "title": draws.choice(['"Great"', '"Ça va 🎸"', '"so-so, \\"really\\""']),
        "text": '"' + "works well for my son " * draws.randrange(4) + '"',
        "images": draws.choice(["[]", '[{"small": "https://x/y.jpg", "n": 1.5}]']),
        "asin": item,
        "parent_asin": draws.choice([item, item, item, "null"]),
        "user_id": f'"AE{draws.randrange(1000):026d}"',
        "timestamp": CELLS["time"](draws),
        "helpful_vote": str(draws.randrange(5)),
        "verified_purchase": draws.choice(["true", "false"]),
    }
    return _record(draws, anomaly_rate, fields, ["user_id", "parent_asin", "asin", "timestamp", "rating"])  # fmt: skip


def _item_line(draws: Random, anomaly_rate: float) -> bytes:
    fields = {
        "main_category": draws.choice(['"Toys"', "null", '""']),
        "title": draws.choice(['"Desk \\n lamp"', '"Lamp"', '"灯"']),
        "average_rating": "4.3",
        "description": draws.choice(['["Bright.", "Second."]', "[]", '[""]', '"Bright."']),
        "store": draws.choice(['"Lux"', "null", '" "']),
        "categories": draws.choice(['["Lighting", "Lamps"]', "[]"]),
        "details": draws.choice(['{"Brand": "Lux", "Weight": "1 kg"}', "{}", '"none"']),
        "parent_asin": f'"B{draws.randrange(1000):09d}"',
    }
    return _record(draws, anomaly_rate, fields, [*fields.keys() - {"average_rating"}])


def _record(draws: Random, anomaly_rate: float, fields: dict[str, str], read: list[str]) -> bytes:
    """A line of JSON; anomalies are more frequent in the fields `read` than in others."""
    if draws.random() < anomaly_rate * 0.6:
        for _ in range(draws.choice([1, 1, 2])):
            where = draws.choice(sorted(read) if draws.random() < 0.7 else list(fields))
            fields[where] = _odd_value(draws)
    pairs = [(json.dumps(key), value) for key, value in fields.items()]
    if draws.random() < anomaly_rate * 0.25:
        pairs = _reshape(draws, pairs)
    comma, colon = draws.choice([(", ", ": "), (", ", ": "), (",", ":"), ("\t,  ", " :\t")])
    text = "{" + comma.join(f"{key}{colon}{value}" for key, value in pairs) + "}"
    return text.encode("utf-8", "surrogatepass")


def _odd_value(draws: Random) -> str:
    return draws.choice(HUGE_VALUES if draws.random() < 0.005 else ODD_VALUES)


def _reshape(draws: Random, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Other keys: one less, one twice, an odd one, one with escapes, in another order, or none."""
    place = draws.randrange(len(pairs))
    (key, value), rest = pairs[place], pairs[:place] + pairs[place + 1 :]
    other = draws.choice([value, '"V"', _odd_value(draws)])
    escaped = '"' + "".join(f"\\u{ord(letter):04X}" for letter in key[1:-1]) + '"'
    shuffled = draws.sample(pairs, len(pairs))
    return draws.choice([
        rest, [*pairs, (key, other)], [(draws.choice(ODD_KEYS), other), *pairs], [(escaped, value), *rest], shuffled,
        [],
    ])  # fmt: skip


def _csv_line(draws: Random, anomaly_rate: float, columns: list[str]) -> bytes:
    cells = [CELLS[name](draws) for name in columns]
    if draws.random() < anomaly_rate * 0.6:
        odd = TOO_LONG if draws.random() < 0.002 else draws.choice(ODD_CELLS)
        cells[draws.randrange(len(cells))] = odd
    if draws.random() < anomaly_rate * 0.1:
        cells = draws.choice([cells[:-1], [*cells, "x"]])
    return ",".join(cells).encode()


def plain_file(draws: Random) -> bytes:
    """Some lines of any bytes, with every kind of line end."""
    lines = [
        draws.choice([b"", b"a", b"line " * draws.randrange(30), draws.randbytes(9), b"\xff\xfe"])
        for _ in range(draws.choice([0, 1, 2, 5, 20, 60]))
    ]
    end = draws.choice([b"\n", b"\n", b"\r\n", b"\r", b"\n\n"])
    text = end.join(lines) + draws.choice([b"", end, b"\n"])
    if draws.random() < 0.003:
        return text * 1000
    return mutate(text, draws) if draws.random() < 0.3 else text


def gzip_file(draws: Random) -> bytes:
    """Complete, in several members, truncated, torn, mutated or with bytes between and after the members."""
    members = [
        gzip.compress(plain_file(draws), draws.choice([0, 1, 6]), mtime=0)
        for _ in range(draws.choice([1, 1, 1, 2, 3]))
    ]
    whole = b"".join(members)
    place = draws.randrange(min(10, len(whole)))
    tail = draws.choice([b"\0" * 9, b"tail", b"\x1f", b"\x1f\x8b", members[0][:12], b"\n"])
    return draws.choice([
        whole, whole[: draws.randrange(len(whole))], whole + tail, (b"\0" * draws.randrange(1, 600)).join(members),
        splice(whole, members[0], draws), mutate(whole, draws),
        whole[:place] + draws.randbytes(1) + whole[place + 1 :],  # a damaged header
    ])  # fmt: skip
