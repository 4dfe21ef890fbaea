"""A made-up shop that sends files: what each holds, and what must come of it, are known beforehand."""

import gzip
import json
from dataclasses import dataclass, field

import numpy as np

DAY = 86_400_000
ITEMS, SHOPPERS, NEWCOMERS = 400, 40, 8
Purchase = tuple[str, str, int]  # user, item, milliseconds
Row = dict[str, object]


@dataclass(frozen=True)
class Delivery:
    """One file; a `refused` one must be put aside as a whole, for its many broken lines or its broken bytes."""

    name: str
    content: bytes
    purchases: tuple[Purchase, ...] = ()
    broken: int = 0
    refused: bool = False
    repeats: bool = False  # the content of one that came before


@dataclass
class Ledger:
    """What a shop's interactions must hold by now: for each user and item the first purchase."""

    firsts: dict[tuple[str, str], int] = field(default_factory=dict)
    lines: int = 0
    broken: int = 0

    def enter(self, delivery: Delivery) -> None:
        if delivery.refused or delivery.repeats:
            return
        self.lines += len(delivery.purchases) + delivery.broken
        self.broken += delivery.broken
        for user, item, time in delivery.purchases:
            self.firsts[user, item] = min(time, self.firsts.get((user, item), time))


class Shop:
    """All that it sends follows from `seed` and the round."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def opening(self) -> tuple[dict[str, bytes], Delivery]:
        """The raw files of the first day: item texts, and reviews."""
        things: list[Row] = [
            {"parent_asin": f"I{n:03d}", "title": f"Thing {n}", "description": ["Good."]}
            for n in range(ITEMS)
        ]
        bought = self._bought(0, range(SHOPPERS))
        reviews = _file("shop.jsonl", bought, ["{broken"])
        return {"meta_shop.jsonl": _text(things), reviews.name: reviews.content}, reviews

    def deliveries(self, number: int) -> list[Delivery]:
        """Of a round, the first is 1: new shoppers and old ones, one gzipped; what is broken; and one file twice."""
        draws = np.random.default_rng([self.seed, number, 1])
        first = SHOPPERS + NEWCOMERS * (number - 1)
        new = self._bought(number, range(first, first + NEWCOMERS))
        again = self._bought(number, draws.choice(SHOPPERS, 10, replace=False).tolist())
        opening = self._bought(0, range(SHOPPERS))
        again += [opening[row] for row in draws.choice(len(opening), 20, replace=False)]
        broken = _file(f"broken-{number}.jsonl", new[:6], ["{", "[1]", '{"user_id": "U"}'])
        good = [
            _file(f"new-{number}.jsonl", new, ["not json"]),
            _file(f"again-{number}.jsonl.gz", again, []),
        ]
        cut = gzip.compress(_text([_row(purchase) for purchase in reversed(new)]), mtime=0)
        return [
            *good,
            Delivery(f"twice-{number}.jsonl", good[0].content, repeats=True),
            Delivery(broken.name, broken.content, refused=True),
            Delivery(f"cut-{number}.jsonl.gz", cut[: len(cut) // 2], refused=True),
        ]

    def _bought(self, number: int, shoppers: range | list[int]) -> list[Purchase]:
        """An item mostly leads to the next one."""
        found = []
        for shopper in shoppers:
            draws = np.random.default_rng([self.seed, number, 0, shopper])
            item = int(draws.integers(ITEMS))
            for place in range(int(draws.integers(5, 12))):
                day = 15_000 + 20 * number + place
                found.append((f"U{shopper:05d}", f"I{item:03d}", day * DAY + shopper))
                item = (item + (1 if draws.random() < 0.9 else int(draws.integers(ITEMS)))) % ITEMS
        return found


def _file(name: str, purchases: list[Purchase], broken: list[str]) -> Delivery:
    """The broken lines stand between the others."""
    lines = [json.dumps(_row(purchase)) for purchase in purchases]
    for place, line in enumerate(broken):
        lines.insert(2 * place + 1, line)
    text = ("\n".join(lines) + "\n").encode()
    content = gzip.compress(text, mtime=0) if name.endswith(".gz") else text
    refused = len(broken) > 0.05 * len(lines)
    return Delivery(name, content, tuple(purchases), len(broken), refused)


def _row(purchase: Purchase) -> Row:
    return dict(zip(("user_id", "parent_asin", "timestamp"), purchase, strict=True))


def _text(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
