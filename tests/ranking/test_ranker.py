"""Rankers whose user vectors are cached."""

import numpy as np

from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import Popularity
from llmsrec.ranking.ranker import VectorRanker, cached


class Counting(VectorRanker):
    """A user's vector is the last item and its time; `represented` counts the histories."""

    def __init__(self) -> None:
        self.represented = 0

    def user_vectors(self, histories: Sequences) -> np.ndarray:
        self.represented += len(histories)
        rows = [(histories[row][-1], histories.times(row)[-1]) for row in range(len(histories))]
        return np.array(rows, dtype=np.float32).reshape(-1, 2)

    def score(self, histories: Sequences) -> np.ndarray:
        return self.score_users(self.user_vectors(histories))

    def score_users(self, users: np.ndarray) -> np.ndarray:
        return users @ np.ones((2, 4), dtype=np.float32)

    def score_candidates(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.score_users(users), items, axis=1)


def test_each_history_is_represented_once_in_any_batch() -> None:
    plain, counting = Counting(), Counting()
    ranker = cached(counting)
    assert isinstance(ranker, VectorRanker)
    histories = from_rows([[1, 2], [3], [1, 2], [4]], [[1, 2], [3], [1, 2], [4]])
    np.testing.assert_array_equal(ranker.user_vectors(histories), plain.user_vectors(histories))
    assert counting.represented == 3
    later = from_rows([[4], [1, 2], [2, 1]], [[4], [1, 2], [1, 2]])
    np.testing.assert_array_equal(ranker.score(later), plain.score(later))
    assert counting.represented == 4
    other_times = from_rows([[4]], [[5]])
    np.testing.assert_array_equal(ranker.user_vectors(other_times), [[4, 5]])
    assert ranker.user_vectors(later.take(np.array([], dtype=np.int64))).shape == (0, 2)


def test_a_ranker_without_vectors_stays_as_it_is(markov_splits: Splits) -> None:
    ranker = Popularity(markov_splits)
    assert cached(ranker) is ranker
