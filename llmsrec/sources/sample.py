"""The built-in sample dataset: synthetic, with the difficulties of real datasets, and the same bytes on every platform.

A user starts with a popular item. The next purchase depends mostly on the *last* one: each item has three successors,
the next accessory of its line, a later one of the sister line, and one of the partner brand. Less often it depends on
the purchase before that, or the user starts again. So the order of purchases matters, and titles name the line and the
domain of an item. Only integers and `random()` are used, because no platform rounds or draws them differently.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmsrec.core.files import atomic_write

SEED = 2025
NUM_USERS = 2_000
DAY = 86_400_000
FIRST_DAY, SPAN = 18_262, 900  # 2020-01-01, and the number of days on which users start

BRANDS = ["Aldera", "Brunvik", "Corvane", "Dolmeri", "Estuna"]
LINES = ["Classic", "Studio", "Terra"]

# The kinds of items of each domain, in the order in which one leads to the next.
DOMAINS = {
    "Coffee": ["espresso machine", "burr grinder", "tamper", "milk frother", "portafilter basket",
               "knock box", "descaling kit", "water filter", "espresso cups", "cleaning tablets"],
    "Photography": ["mirrorless camera", "prime lens", "tripod", "camera bag", "memory card",
                    "spare battery", "lens filter", "flash unit", "sensor cleaning kit", "photo album"],
    "Gaming": ["game console", "wireless controller", "charging dock", "headset", "racing wheel",
               "carrying case", "storage card", "cooling stand", "thumb grips", "screen protector"],
    "Printing": ["inkjet printer", "black ink cartridge", "colour ink cartridge", "photo paper", "print head cleaner",
                 "label sheets", "paper tray", "toner powder", "laminator", "laminating pouches"],
    "Garden": ["raised bed", "potting soil", "seed starter kit", "hand trowel", "drip irrigation set",
               "grow light", "plant food", "pruning shears", "trellis net", "compost bin"],
    "Aquarium": ["glass aquarium", "canister filter", "filter sponges", "aquarium heater", "LED light bar",
                 "substrate gravel", "water conditioner", "test strips", "algae scraper", "fish flakes"],
    "Cycling": ["road bike", "bike helmet", "floor pump", "inner tubes", "chain oil",
                "tail light", "bottle cage", "saddle bag", "brake pads", "bar tape"],
    "Guitar": ["electric guitar", "practice amplifier", "instrument cable", "string set", "clip-on tuner",
               "guitar stand", "padded gig bag", "overdrive pedal", "pedal power supply", "pick assortment"],
    "Baking": ["stand mixer", "dough hook", "proofing basket", "bread lame", "baking stone",
               "digital scale", "bread flour", "cooling rack", "cake pans", "piping tips"],
    "Sewing": ["sewing machine", "bobbin set", "machine needles", "thread assortment", "fabric scissors",
               "cutting mat", "rotary cutter", "sewing clips", "seam ripper", "pattern paper"],
}  # fmt: skip
COLOURS = ["black", "white", "silver", "forest green", "sand", "navy"]


@dataclass(frozen=True)
class Item:
    """An item of the sample; `cold` ones are rarely bought."""

    number: int
    item_id: str
    domain: str
    kind: int
    brand: int
    line: int
    colour: str
    cold: bool

    @property
    def name(self) -> str:
        return DOMAINS[self.domain][self.kind]

    @property
    def family(self) -> str:
        return f"{BRANDS[self.brand]} {LINES[self.line]}"

    @property
    def title(self) -> str:
        if self.kind == 0:
            return f"{self.family} {self.name}, {self.colour}"
        return f"{self.family} {self.name} for {DOMAINS[self.domain][0]}, {self.colour}"


class SampleCatalog:
    """1,500 items: ten domains with ten kinds each, by five brands with three lines each."""

    def __init__(self, generator: random.Random) -> None:
        self.generator = generator
        numbers = shuffled(range(1, 1501), generator)  # so that ids carry no information
        self.items: list[Item] = []
        for domain, kinds in DOMAINS.items():
            for kind in range(len(kinds)):
                for brand in range(len(BRANDS)):
                    for line in range(len(LINES)):
                        number = len(self.items)
                        colour = COLOURS[randbelow(len(COLOURS), generator)]
                        cold = kind > 0 and randbelow(8, generator) == 0
                        item_id = f"SA{numbers[number]:08d}"
                        self.items.append(
                            Item(number, item_id, domain, kind, brand, line, colour, cold)
                        )
        self.starts = [item for item in self.items if not item.cold and item.kind in (0, 3, 6)]
        self.start_order = shuffled(self.starts, generator)  # in descending popularity

    def successors(self, item: Item) -> list[Item]:
        """The three possible next items, the likeliest first."""
        kinds, lines, brands = 10, len(LINES), len(BRANDS)
        return [
            self._at(item, (item.kind + 1) % kinds, item.brand, item.line),
            self._at(item, (item.kind + 3) % kinds, item.brand, (item.line + 1) % lines),
            self._at(item, (item.kind + 7) % kinds, (item.brand + 1) % brands, item.line),
        ]

    def _at(self, item: Item, kind: int, brand: int, line: int) -> Item:
        domain = list(DOMAINS).index(item.domain)
        return self.items[((domain * 10 + kind) * len(BRANDS) + brand) * len(LINES) + line]

    def draw_start(self) -> Item:
        """A starting item; squaring a uniform draw favours the popular ones."""
        quantile = self.generator.random() ** 2
        return self.start_order[int(quantile * len(self.start_order))]

    def draw_successor(self, item: Item) -> Item:
        """A next item: mostly the likeliest successor, rarely a cold one."""
        tenth = randbelow(10, self.generator)
        successor = self.successors(item)[0 if tenth < 6 else 1 if tenth < 9 else 2]
        if successor.cold and randbelow(4, self.generator):
            return self.successors(item)[1]
        return successor


def generate_history(catalog: SampleCatalog) -> list[tuple[Item, int]]:
    """One user's purchases and their days."""
    generator = catalog.generator
    day = FIRST_DAY + randbelow(SPAN, generator)
    history = [(catalog.draw_start(), day)]
    length = 6 + min(randbelow(9, generator), randbelow(16, generator))
    for _ in range(4 * length):
        if len(history) == length:
            break
        percent = randbelow(100, generator)
        if percent < 58:
            item, same_day = catalog.draw_successor(history[-1][0]), randbelow(10, generator) == 0
        elif percent < 70 and len(history) > 1:
            item, same_day = catalog.draw_successor(history[-2][0]), randbelow(2, generator) == 0
        else:
            item, same_day = catalog.draw_start(), randbelow(10, generator) < 7
        if all(item.number != other.number for other, _ in history):
            day += 0 if same_day else 1 + randbelow(20, generator)
            history.append((item, day))
    return history


def write_sample(folder: Path, seed: int = SEED) -> list[Path]:
    """Write sample.jsonl and meta_sample.jsonl; returns their paths."""
    generator = random.Random(seed)
    catalog = SampleCatalog(generator)
    reviews = list(_reviews(catalog))
    reviews += [reviews[randbelow(len(reviews), generator)] for _ in range(30)]  # duplicates
    reviews += _malformed(reviews, generator)
    metadata = [
        json.dumps(_metadata(item)) for item in catalog.items if randbelow(100, generator)
    ]  # one item in a hundred has no metadata
    files = []
    for name, lines in (("sample.jsonl", reviews), ("meta_sample.jsonl", metadata)):
        content = "".join(f"{line}\n" for line in shuffled(lines, generator))
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content.encode())
        files.append(folder / name)
    return files


def _reviews(catalog: SampleCatalog) -> Iterator[str]:
    generator = catalog.generator
    for user in range(NUM_USERS):
        for item, day in generate_history(catalog):
            stars = 5 - min(randbelow(5, generator), randbelow(5, generator))
            yield json.dumps(
                {
                    "rating": float(stars) if randbelow(5, generator) else None,
                    "title": "",
                    "text": "",
                    "images": [],
                    "asin": item.item_id,
                    "parent_asin": item.item_id,
                    "user_id": f"SU{user * 7919 % 100_000:05d}",
                    "timestamp": day * DAY,
                    "helpful_vote": 0,
                    "verified_purchase": True,
                }
            )


def _metadata(item: Item) -> dict[str, Any]:
    kinds = DOMAINS[item.domain]
    accessory = kinds[(item.kind + 1) % len(kinds)]
    return {
        "main_category": item.domain,
        "title": item.title,
        "average_rating": None,
        "rating_number": None,
        "features": [],
        "description": [
            f"A {item.colour} {item.name} of the {item.family} family for {item.domain.lower()}. "
            f"Made to be used with the {item.family} {accessory}."
        ],
        "price": None,
        "images": [],
        "videos": [],
        "store": BRANDS[item.brand],
        "categories": [item.domain, item.name],
        "details": {},
        "parent_asin": item.item_id,
        "bought_together": None,
    }


def _malformed(reviews: list[str], generator: random.Random) -> list[str]:
    """Sixty malformed lines of the six kinds that real files contain."""
    malformed: list[str] = []
    for number in range(60):
        line = reviews[randbelow(len(reviews), generator)]
        record = json.loads(line)
        kind = number % 6
        if kind == 0:
            malformed.append(line[: len(line) // 2])
            continue
        if kind == 1:
            malformed.append(json.dumps([record["user_id"], record["asin"]]))
            continue
        if kind == 2:
            del record["user_id"]
        elif kind == 3:
            record["timestamp"] = str(record["timestamp"])
        elif kind == 4:
            record["timestamp"] = 0
        else:
            record["asin"] = record["parent_asin"] = ""
        malformed.append(json.dumps(record))
    return malformed


def randbelow(limit: int, generator: random.Random) -> int:
    """A random integer in [0, limit)."""
    return int(generator.random() * limit)


def shuffled(values: Any, generator: random.Random) -> list[Any]:
    """Fisher-Yates shuffle; Python does not guarantee that `random.shuffle` draws the same in every version."""
    result = list(values)
    for last in range(len(result) - 1, 0, -1):
        other = randbelow(last + 1, generator)
        result[last], result[other] = result[other], result[last]
    return result
