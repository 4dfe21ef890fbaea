"""The embedded sample store: made up, yet with what makes real stores hard, and the same bytes everywhere.

A shopper starts somewhere popular. What follows is decided mostly by the *last* purchase: each product leads to three
others (the next accessory of the line, a later one of the sister line, the partner brand's), less often by an earlier
one, else the shopper starts anew. So the same products bought in another order lead elsewhere, and titles tell which
product belongs to which line. Only integers and `random()` are used: no platform rounds or draws them differently.
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
FIRST_DAY, SPAN = 18_262, 900  # 2020-01-01, and the days on which shoppers start

BRANDS = ["Aldera", "Brunvik", "Corvane", "Dolmeri", "Estuna"]
LINES = ["Classic", "Studio", "Terra"]

# What a shopper of each domain buys, in the order in which one thing leads to the next.
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


class Store:
    """1,500 items: ten domains, ten kinds in each, five brands with three lines."""

    def __init__(self, draws: random.Random) -> None:
        self.draws = draws
        numbers = shuffled(range(1, 1501), draws)  # so that an id tells nothing of its item
        self.items: list[Item] = []
        for domain, kinds in DOMAINS.items():
            for kind in range(len(kinds)):
                for brand in range(len(BRANDS)):
                    for line in range(len(LINES)):
                        number = len(self.items)
                        colour = COLOURS[below(len(COLOURS), draws)]
                        cold = kind > 0 and below(8, draws) == 0
                        item_id = f"SA{numbers[number]:08d}"
                        self.items.append(
                            Item(number, item_id, domain, kind, brand, line, colour, cold)
                        )
        self.starts = [item for item in self.items if not item.cold and item.kind in (0, 3, 6)]
        self.start_order = shuffled(self.starts, draws)  # popularity falls along this list

    def followers(self, item: Item) -> list[Item]:
        """What leads on from an item, likeliest first."""
        kinds, lines, brands = 10, len(LINES), len(BRANDS)
        return [
            self._at(item, (item.kind + 1) % kinds, item.brand, item.line),
            self._at(item, (item.kind + 3) % kinds, item.brand, (item.line + 1) % lines),
            self._at(item, (item.kind + 7) % kinds, (item.brand + 1) % brands, item.line),
        ]

    def _at(self, item: Item, kind: int, brand: int, line: int) -> Item:
        domain = list(DOMAINS).index(item.domain)
        return self.items[((domain * 10 + kind) * len(BRANDS) + brand) * len(LINES) + line]

    def popular_start(self) -> Item:
        """Squaring a uniform draw favours the head of the list."""
        place = self.draws.random() ** 2
        return self.start_order[int(place * len(self.start_order))]

    def follow(self, item: Item) -> Item:
        """Half of the shoppers take the likeliest follower; few find a cold one."""
        chance = below(10, self.draws)
        chosen = self.followers(item)[0 if chance < 6 else 1 if chance < 9 else 2]
        if chosen.cold and below(4, self.draws):
            return self.followers(item)[1]
        return chosen


def shop(store: Store) -> list[tuple[Item, int]]:
    """One shopper's purchases and their days."""
    draws = store.draws
    day = FIRST_DAY + below(SPAN, draws)
    bought = [(store.popular_start(), day)]
    length = 6 + min(below(9, draws), below(16, draws))
    for _ in range(4 * length):
        if len(bought) == length:
            break
        chance = below(100, draws)
        if chance < 58:
            item, same_day = store.follow(bought[-1][0]), below(10, draws) == 0
        elif chance < 70 and len(bought) > 1:
            item, same_day = store.follow(bought[-2][0]), below(2, draws) == 0
        else:
            item, same_day = store.popular_start(), below(10, draws) < 7
        if all(item.number != other.number for other, _ in bought):
            day += 0 if same_day else 1 + below(20, draws)
            bought.append((item, day))
    return bought


def generate(folder: Path, seed: int = SEED) -> list[Path]:
    """Write sample.jsonl and meta_sample.jsonl; returns their paths."""
    draws = random.Random(seed)
    store = Store(draws)
    lines = list(_reviews(store))
    lines += [lines[below(len(lines), draws)] for _ in range(30)]  # sent twice
    lines += _broken(lines, draws)
    metadata = [
        json.dumps(_metadata(item)) for item in store.items if below(100, draws)
    ]  # one in a hundred items has none
    files = []
    for name, content in (("sample.jsonl", lines), ("meta_sample.jsonl", metadata)):
        path = folder / name
        with atomic_write(path) as aside:
            aside.write_bytes("".join(f"{line}\n" for line in shuffled(content, draws)).encode())
        files.append(path)
    return files


def _reviews(store: Store) -> Iterator[str]:
    for user in range(NUM_USERS):
        for item, day in shop(store):
            stars = 5 - min(below(5, store.draws), below(5, store.draws))
            yield json.dumps(
                {
                    "rating": float(stars) if below(5, store.draws) else None,
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
    after = kinds[(item.kind + 1) % len(kinds)]
    return {
        "main_category": item.domain,
        "title": item.title,
        "average_rating": None,
        "rating_number": None,
        "features": [],
        "description": [
            f"A {item.colour} {item.name} of the {item.family} family for {item.domain.lower()}. "
            f"Made to be used with the {item.family} {after}."
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


def _broken(lines: list[str], draws: random.Random) -> list[str]:
    """Sixty lines of the kinds that real dumps hold."""
    broken: list[str] = []
    for number in range(60):
        line = lines[below(len(lines), draws)]
        record = json.loads(line)
        kind = number % 6
        if kind == 0:
            broken.append(line[: len(line) // 2])
            continue
        if kind == 1:
            broken.append(json.dumps([record["user_id"], record["asin"]]))
            continue
        if kind == 2:
            del record["user_id"]
        elif kind == 3:
            record["timestamp"] = str(record["timestamp"])
        elif kind == 4:
            record["timestamp"] = 0
        else:
            record["asin"] = record["parent_asin"] = ""
        broken.append(json.dumps(record))
    return broken


def below(limit: int, draws: random.Random) -> int:
    return int(draws.random() * limit)


def shuffled(values: Any, draws: random.Random) -> list[Any]:
    """Fisher and Yates, written out: how `random.shuffle` draws is not promised."""
    result = list(values)
    for last in range(len(result) - 1, 0, -1):
        other = below(last + 1, draws)
        result[last], result[other] = result[other], result[last]
    return result
