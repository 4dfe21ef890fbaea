"""Popularity and a first-order Markov chain as baselines of sequence models (specification 9)."""

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits


class Popularity:
    """Scores an item by its number of training interactions."""

    def __init__(self, splits: Splits) -> None:
        counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)
        self.counts = counts.astype(np.float32)

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return np.broadcast_to(self.counts, (len(histories), len(self.counts)))


class MarkovChain:
    """Scores an item by how often it directly followed the user's last one; popularity breaks ties."""

    def __init__(self, splits: Splits, train: Sequences | None = None) -> None:
        train = splits.train if train is None else train
        size = splits.num_items + 1
        follows = np.ones(len(train.items), dtype=bool)
        follows[train.offsets[:-1][train.lengths > 0]] = False  # a user's first item follows none
        places = np.flatnonzero(follows)
        pairs = (train.items[places - 1], train.items[places])
        ones = np.ones(len(places), dtype=np.float32)
        self.follows = sparse.csr_matrix((ones, pairs), shape=(size, size))
        popularity = Popularity(splits).counts
        self.backoff = popularity / (popularity.max() + 1)  # below 1, so below any count

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        last: Int[np.ndarray, users] = np.zeros(len(histories), dtype=np.int64)
        nonempty = histories.lengths > 0
        last[nonempty] = histories.items[histories.offsets[1:][nonempty] - 1]
        return np.asarray(self.follows[last].toarray() + self.backoff)
