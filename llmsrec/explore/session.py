"""What the page remembers about one visitor: the history, its original order, and the products that were added."""

import random
from dataclasses import dataclass

from llmsrec.explore.answers import NEW_ITEM, Purchase, Shopper


@dataclass(frozen=True)
class Entry:
    """An item of the history; `number` counts the items in their original order."""

    number: int
    item_id: str


class Session:
    """`times` (ms) belong to the places of the history: they stay there when items change places."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.times: list[int] = []
        self.next_item: str | None = None  # what the shopper bought next
        self.added: list[str] = []  # titles of new products
        self.error = ""

    @property
    def original(self) -> list[Entry]:
        return sorted(self.entries, key=lambda entry: entry.number)

    @property
    def moved(self) -> list[bool]:
        """For each place, whether its item is not the original one."""
        return [a != b for a, b in zip(self.entries, self.original, strict=True)]

    def purchases(self, entries: list[Entry]) -> list[Purchase]:
        pairs = zip(entries, self.times, strict=True)
        return [Purchase(entry.item_id, time) for entry, time in pairs]

    def take(self, shopper: Shopper) -> None:
        self.entries = [Entry(place, one.item_id) for place, one in enumerate(shopper.purchases)]
        self.times = [one.time for one in shopper.purchases]
        self.next_item = shopper.next_item

    def clear(self) -> None:
        self.entries, self.times, self.next_item = [], [], None

    def add(self, item_id: str, time: int) -> None:
        """Append an item, bought at `time` or with the last one if that was later."""
        number = max((entry.number for entry in self.entries), default=-1) + 1
        self.entries.append(Entry(number, item_id))
        self.times.append(max([time, *self.times[-1:]]))

    def keep(self, places: list[int]) -> None:
        """Put the items of these places into this order and drop the others; the latest times remain."""
        self.entries = [self.entries[place] for place in places]
        self.times = self.times[len(self.times) - len(places) :]

    def shuffle(self) -> None:
        self.keep(random.sample(range(len(self.entries)), len(self.entries)))

    def restore_order(self) -> None:
        self.entries = self.original

    def add_product(self, title: str) -> None:
        if title.strip():
            self.added.append(title.strip())

    def remove_products(self) -> None:
        rows = enumerate(self.entries)
        self.keep([place for place, one in rows if not one.item_id.startswith(NEW_ITEM)])
        self.added = []

    @property
    def followed(self) -> dict[str, str]:
        """The items whose ranks are shown, by the title of the column."""
        items = {"Rank of the true next purchase": self.next_item} if self.next_item else {}
        last = {"Rank of the added product": f"{NEW_ITEM}{len(self.added)}"} if self.added else {}
        return items | last
