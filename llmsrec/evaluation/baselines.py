"""Popularity and a first-order Markov chain: what a model must beat before its order means anything (SPEC 9)."""

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.ranking.ranker import Ranker


def baselines(splits: Splits, seed: int) -> dict[str, Ranker]:
    """What needs no training; the chain that counted on shuffled histories tells whether order says anything."""
    unordered = splits.train.shuffled(np.random.default_rng(seed))
    return {
        "popularity": Popularity(splits),
        "markov": MarkovChain(splits),
        "markov_unordered": MarkovChain(splits, unordered),
    }


class Popularity:
    """How often an item was bought in training."""

    def __init__(self, splits: Splits) -> None:
        counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)
        self.counts = counts.astype(np.float32)

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return np.broadcast_to(self.counts, (len(histories), len(self.counts)))


class MarkovChain:
    """How often an item directly followed the user's last one; popularity orders what never did."""

    def __init__(self, splits: Splits, train: Sequences | None = None) -> None:
        train = splits.train if train is None else train
        size = splits.num_items + 1
        first = np.ones(len(train.items), dtype=bool)
        first[train.offsets[:-1][train.lengths > 0]] = False  # a user's first purchase follows none
        after = np.flatnonzero(first)
        pairs = (train.items[after - 1], train.items[after])
        ones = np.ones(len(after), dtype=np.float32)
        self.follows = sparse.csr_matrix((ones, pairs), shape=(size, size))
        popularity = Popularity(splits).counts
        self.backoff = popularity / (popularity.max() + 1)  # below 1, so below any count

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        last: Int[np.ndarray, users] = np.zeros(len(histories), dtype=np.int64)
        known = histories.lengths > 0
        last[known] = histories.items[histories.offsets[1:][known] - 1]
        return np.asarray(self.follows[last].toarray() + self.backoff)
