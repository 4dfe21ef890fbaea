"""Rankers by dot product: scores of all items and of candidates, and the evaluation of both."""

import numpy as np
import pytest
import torch

from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.data.splits import Splits
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential import ranker
from llmsrec.sequential.ranker import DotProductRanker

SIZE = 6


class ByLastItem(DotProductRanker):
    """A user is the vector of its last purchase; every second item has the vector of the one before, so ties abound."""

    def __init__(self, num_items: int) -> None:
        vectors = torch.randn(num_items + 1, SIZE, generator=torch.Generator().manual_seed(0))
        vectors[2::2] = vectors[1:-1:2]
        super().__init__(vectors)

    def user_vectors(self, histories: Sequences) -> np.ndarray:
        last = [histories[row][-1] if len(histories[row]) else 0 for row in range(len(histories))]
        return self.item_vectors[last].numpy() + 0.1


class ScoresAlone:
    """The same scores of a ranker that has no vectors."""

    def __init__(self, other: DotProductRanker) -> None:
        self.other = other

    def score(self, histories: Sequences) -> np.ndarray:
        return self.other.score(histories)


@pytest.mark.parametrize("gathered", [1, 3 * SIZE * 2, 1 << 19])
def test_scores_of_some_items_equal_those_among_all(
    gathered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranker, "GATHERED_VALUES", gathered)
    model = ByLastItem(20)
    histories = from_rows([[1, 2], [5], [], [20, 7, 7], [3]])
    items = np.random.default_rng(0).integers(0, 21, (5, 3))
    scores = model.score_candidates(model.user_vectors(histories), items)
    whole = np.take_along_axis(model.score(histories), items, axis=1)
    np.testing.assert_allclose(scores, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("full", [False, True])
def test_ranks_are_those_of_a_ranker_without_vectors(markov_splits: Splits, full: bool) -> None:
    model = ByLastItem(markov_splits.num_items)
    rows = np.arange(len(markov_splits.candidates["valid"]))[::-1]  # of so many, some have ties
    actual = evaluate(model, markov_splits, "valid", rows=rows, full=full)
    plain = evaluate(ScoresAlone(model), markov_splits, "valid", rows=rows)
    for name in ("better", "ties", "num_candidates"):
        assert getattr(actual.sampled, name).tolist() == getattr(plain.sampled, name).tolist()
    assert actual.sampled.ties.sum() > 0
    assert (actual.full is None) == (not full)


def test_the_scores_of_other_items_are_not_computed(
    markov_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ByLastItem(markov_splits.num_items)
    monkeypatch.setattr(model, "score_users", None)
    assert len(evaluate(model, markov_splits, "test", full=False).sampled.better) > 0


def test_nan_is_an_error_that_names_the_user(markov_splits: Splits) -> None:
    model = ByLastItem(markov_splits.num_items)
    model.item_vectors[:] = float("nan")
    with pytest.raises(FloatingPointError, match=r"NaN for user rows \[77\]"):
        evaluate(model, markov_splits, "valid", rows=np.array([77]), full=False)
