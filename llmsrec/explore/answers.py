"""What the page shows for one history: the best items of each part and of the recommender, and each part's share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from llmsrec.core.errors import DataError
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.serving.recommender import Recommender
from llmsrec.serving.requests import NewItems

NEW_ITEM = "added on the page "  # begins the item_id of such a product


@dataclass(frozen=True)
class Purchase:
    """`time` is in ms UTC."""

    item_id: str
    time: int


@dataclass(frozen=True)
class Shopper:
    """A test user: what was bought before the test target, and the target."""

    user_id: str
    purchases: list[Purchase]
    next_item: str


@dataclass(frozen=True)
class Answer:
    """Scores of all items for one history.

    `scores` has a row for each part and for `recommender`; items that may not be recommended have -inf. `shares` has
    a row for each part: weight times score, minus its mean over the items. Summed over the parts they are the
    recommender's score up to a constant, because a constant does not change an order.
    """

    scores: dict[str, Float[np.ndarray, "indices"]]
    shares: dict[str, Float[np.ndarray, "indices"]]

    def best(self, system: str, k: int) -> list[int]:
        """The item_index of the best `k` items, best first."""
        scores = self.scores[system]
        best = np.argsort(-scores, kind="stable")[:k]
        return best[np.isfinite(scores[best])].tolist()

    def rank(self, system: str, item: int) -> int | None:
        """The place of an item_index, from 1; nothing for an item that may not be recommended."""
        scores = self.scores[system]
        return int((scores > scores[item]).sum()) + 1 if np.isfinite(scores[item]) else None


class Explorer:
    """A trained dataset, with the products that were added on the page."""

    def __init__(self, recommender: Recommender, splits: Splits) -> None:
        self.recommender, self.splits = recommender, splits
        evaluated = splits.evaluated("test").users
        self.test_rows = {splits.user_ids[user]: row for row, user in enumerate(evaluated.tolist())}

    @classmethod
    def load(cls, folder: Path) -> "Explorer":
        """Raises ArtifactError where the folder of a dataset lacks a part."""
        return cls(Recommender.load(folder), Splits.load(folder / "splits"))

    def with_new_items(self, titles: Sequence[str]) -> "Explorer":
        """The same with additional products that nobody has bought."""
        ids = tuple(f"{NEW_ITEM}{number}" for number in range(1, len(titles) + 1))
        added = NewItems(ids, tuple(titles))
        return Explorer(self.recommender.with_new_items(added), self.splits)

    @property
    def systems(self) -> list[str]:
        """The recommender, then its parts."""
        return ["recommender", *self.recommender.fitted.weights]

    def title(self, item_id: str) -> str:
        catalog = self.recommender.catalog
        return catalog.titles[int(catalog.indices([item_id])[0])]

    def shopper(self, user_id: str) -> Shopper:
        """Raises DataError for somebody who is not a test user."""
        if user_id not in self.test_rows:
            first = next(iter(self.test_rows))
            raise DataError(f"no test user {user_id!r}; one that exists is {first}")
        row, item_id = self.test_rows[user_id], self.splits.catalog.item_id
        histories = self.splits.histories("test")
        pairs = zip(histories[row].tolist(), histories.times(row).tolist(), strict=True)
        purchases = [Purchase(item_id(item), time) for item, time in pairs]
        return Shopper(
            user_id, purchases, item_id(int(self.splits.candidates["test"].targets[row]))
        )

    def search(self, text: str, limit: int) -> list[str]:
        """The item_id of products whose title has all words of `text`, in any case."""
        catalog, words = self.recommender.catalog, text.casefold().split()
        found = []
        for item, title in enumerate(catalog.titles[1:], start=1):
            if all(word in title.casefold() for word in words):
                found.append(catalog.item_id(item))
                if len(found) == limit:
                    break
        return found

    def answer(self, purchases: Sequence[Purchase]) -> Answer:
        """The scores for at least one purchase, oldest first."""
        fitted, catalog = self.recommender.fitted, self.recommender.catalog
        items = catalog.indices([one.item_id for one in purchases])
        history = from_rows([items.tolist()], [[one.time for one in purchases]])
        parts = self.recommender.parts.by_name()
        scores = {name: parts[name].score(history)[0] for name in fitted.weights}
        weighted = {name: np.float32(fitted.weights[name]) * row for name, row in scores.items()}
        shares = {name: row - row[1:].mean() for name, row in weighted.items()}
        scores = {"recommender": np.sum(list(weighted.values()), axis=0), **scores}
        for name, row in scores.items():
            scores[name] = row.copy()
            scores[name][[0, *items.tolist()]] = -np.inf
        return Answer(scores, shares)


def overlap(first: Sequence[int], second: Sequence[int]) -> float:
    """The share of the items of `first` that are in `second`."""
    return len(set(first) & set(second)) / max(len(first), 1)
