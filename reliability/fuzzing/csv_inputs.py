"""Generated lines of CSV and the headers of their files."""

from collections.abc import Callable
from random import Random

from reliability.fuzzing.inputs import TIMES, Made, damaged

ODD_CELLS = {
    "empty": "", "space": " ", "zero": "0", "seconds": "1500000000", "decimal": "1500000000000.0",
    "exponent": "15e11", "date": "2017-07-14", "spaces around": " 1500000000000 ", "plus": "+1500000000000",
    "underscores": "1_500_000_000_000", "other digits": "\u0661\u0665" + "\u0660" * 11,
    "wide digits": "\uff11\uff15" + "\uff10" * 11, "400 digits": "9" * 400, "5000 digits": "9" * 5000,
    "nan": "nan", "inf": "-Infinity", "1e999": "1e999", "rating with underscore": "1_0.5", "hex float": "0x1p3",
    "quoted": '"a"', "quoted comma": '"a,b"', "doubled quotes": '"a ""b"""', "only quotes": '""',
    "quote inside": 'a"b', "quote after": '"a"b', "quote unclosed": '"a', "quote odd": '"""',
    "space before quote": ' "a"', "comma": "a,b", "semicolon": "a;b", "tab": "a\tb", "CR inside": "a\rb",
    "quoted CR": '"a\rb"', "NUL": "a\x00b", "BOM": "\ufeffa", "zero width": "\u200b",
    "line separator": "a\u2028b", "next line": "a\u0085b", "unicode": "Zoë 🎸 日本", "formula": "=1+1",
    "long": "x" * 3000, "backslash": "a\\,b", "over the limit": "y" * 140_000, "noncharacter": "\uffff",
}  # fmt: skip
HEADERS = [
    "user_id,parent_asin,rating,timestamp", "user,item,timestamp,title,brand,category,description,rating",
    "timestamp,item_id,user", "\ufefftimestamp,parent_asin,user_id,title",
    '"user_id","parent_asin","timestamp","rating"', "user_id,parent_asin,rating,timestamp,other",
    "user_id,parent_asin,asin,timestamp,rating,title,store", "user_id,parent_asin,timestamp,,",
]  # fmt: skip
CELLS: dict[str, Callable[[Random], str]] = {
    "user": lambda draws: f"AE{draws.randrange(1000):026d}",
    "item": lambda draws: f"B{draws.randrange(1000):09d}",
    "time": lambda draws: str(draws.choice(TIMES) + draws.randrange(1000) - 500),
    "rating": lambda draws: draws.choice(["5.0", "4", "", "1.5"]),
    "text": lambda draws: draws.choice(["Lamp", '"Lamp, ""small"""', "", "灯"]),
}
SHAPES = [
    ["user", "item", "rating", "time"], ["user", "item", "time", "text", "text", "text", "text", "rating"],
    ["time", "item", "user"], ["time", "item", "user", "text"], ["user", "item", "time", "rating"],
    ["user", "item", "rating", "time", "user"], ["user", "item", "item", "time", "rating", "text", "text"],
    ["user", "item", "time", "text", "text"],
]  # fmt: skip


def csv_line(draws: Random, anomaly_rate: float, shape: int) -> Made:
    """A line of a file under HEADERS[shape], with its kinds of anomalies."""

    def generate() -> Made:
        kinds: list[str] = []
        cells = [CELLS[name](draws) for name in SHAPES[shape]]
        if draws.random() < anomaly_rate * 0.6:
            place = draws.randrange(len(cells))
            what = (
                draws.choice(list(ODD_CELLS)[:-2]) if draws.random() < 0.998 else "over the limit"
            )
            cells[place] = ODD_CELLS[what]
            kinds.append(f"{SHAPES[shape][place]}: {what}")
        if draws.random() < anomaly_rate * 0.1:
            kinds.append("column missing" if draws.random() < 0.5 else "column too many")
            cells = cells[:-1] if kinds[-1] == "column missing" else [*cells, "x"]
        return ",".join(cells).encode(), kinds

    return damaged(draws, anomaly_rate, generate(), generate)
