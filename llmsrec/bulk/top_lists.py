"""The best items of some users, while scores arrive in blocks of items."""

import numpy as np
from jaxtyping import Float, Int

CROWDED = 8  # times k new scores for each user are more than is sorted

# items and scores, best first; 0 where there are fewer than k
Lists = tuple[Int[np.ndarray, "users k"], Float[np.ndarray, "users k"]]


class TopLists:
    """The best k scores of each user so far; of equal scores, the item of the lower index is first."""

    def __init__(self, num_users: int, k: int) -> None:
        self.items = np.zeros((num_users, k), dtype=np.int64)
        self.scores = np.full((num_users, k), -np.inf, dtype=np.float32)

    def add(self, scores: Float[np.ndarray, "items users"], start: int) -> None:
        """The scores of the items from index `start` on, block by block in rising order; -inf leaves an item out."""
        (num_users, k), bounds = self.items.shape, self.scores[:, -1]
        better = scores > bounds
        last = len(scores) - k
        if last > 0 and np.count_nonzero(better) > CROWDED * k * num_users:
            best = np.partition(scores, last, axis=0)[last]  # the k-th best of this block
            better = scores > np.maximum(bounds, np.nextafter(best, np.float32(-np.inf)))
        places = np.flatnonzero(better)
        if not len(places):
            return
        items, users = np.divmod(places, num_users)
        users = np.concatenate([np.repeat(np.arange(num_users), k), users])
        items = np.concatenate([self.items.ravel(), items + start])
        values = np.concatenate([self.scores.ravel(), scores.ravel()[places]])
        order = np.lexsort((-values, users))  # stable: equal scores stay in the order of items
        firsts = np.searchsorted(users[order], np.arange(num_users))
        order = order[firsts[:, None] + np.arange(k)]
        self.items, self.scores = items[order], values[order]

    def lists(self) -> Lists:
        """The best items and their scores."""
        return self.items, np.where(self.items > 0, self.scores, np.float32(0))
