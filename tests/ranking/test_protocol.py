"""Ranks against a slow loop that sorts, one user at a time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.data.sequences import Sequences, from_rows
from llmsrec.data.splits import Candidates, Splits
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking import protocol
from llmsrec.ranking.metrics import Ranks, hit_rate
from llmsrec.ranking.protocol import evaluate, rank_all_items, rank_candidates
from tests.conftest import interactions_of, markov_histories, splits_config


class ByHistory:
    """Scores of few different values, decided by the history alone: ties abound."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items
        self.calls: list[int] = []

    def one(self, history: list[int]) -> np.ndarray:
        draws = np.random.default_rng(history)
        return draws.integers(0, 12, self.num_items + 1).astype(np.float32)

    def score(self, histories: Sequences) -> np.ndarray:
        self.calls.append(len(histories))
        return np.stack([self.one(histories[row].tolist()) for row in range(len(histories))])


class Constant:
    def __init__(self, num_items: int, value: float = 0.5) -> None:
        self.shape, self.value = num_items + 1, value

    def score(self, histories: Sequences) -> np.ndarray:
        return np.full((len(histories), self.shape), self.value, dtype=np.float32)


def slow_rank(scores: np.ndarray, among: list[int], target: int) -> tuple[int, int, int]:
    """Sorted from the best down: how many stand before the target's score, and how many share it."""
    ordered = sorted((float(scores[item]) for item in among), reverse=True)
    mine = float(scores[target])
    better = ordered.index(mine)
    return better, len(ordered) - ordered[::-1].index(mine) - better - 1, len(among)


def triples(ranks: Ranks | None) -> list[tuple[int, int, int]]:
    assert ranks is not None
    return list(
        zip(ranks.better.tolist(), ranks.ties.tolist(), ranks.num_candidates.tolist(), strict=True)
    )


@pytest.mark.parametrize("part", ["valid", "test"])
def test_both_ranks_equal_a_loop_that_sorts(markov_splits: Splits, part: Any) -> None:
    ranker = ByHistory(markov_splits.num_items)
    found = evaluate(ranker, markov_splits, part)
    targets, candidates = markov_splits.targets[part], markov_splits.candidates[part]
    sampled, full = [], []
    for row, place in enumerate(candidates.rows):
        user, position = int(targets.users[place]), int(targets.positions[place])
        bought = markov_splits.sequences[user].tolist()
        history, target = bought[:position], bought[position]
        scores = ranker.one(history)
        sampled.append(slow_rank(scores, candidates.items[row].tolist(), target))
        unseen = [item for item in range(1, 41) if item not in history]
        full.append(slow_rank(scores, unseen, target))
    assert triples(found.sampled) == sampled
    assert triples(found.full) == full
    assert len({better for better, _, _ in sampled}) > 5  # the loop had something to tell
    assert any(ties for _, ties, _ in sampled)


@given(st.lists(st.integers(0, 4), min_size=2, max_size=15), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_candidates_does_not_matter(values: list[int], random: Any) -> None:
    items = list(range(len(values)))
    expected = slow_rank(np.array(values), items, 0)
    random.shuffle(items)
    candidates = Candidates(np.array([0]), np.array([items]), np.array([items.index(0)]))
    scores = np.array([[values[item] for item in items]], dtype=np.float32)
    assert triples(rank_candidates(scores, candidates)) == [expected]


def test_the_full_ranking_leaves_out_padding_and_what_was_bought() -> None:
    scores = np.array([[99, 5, 4, 3, 2, 1], [99, 1, 1, 1, 1, 1]], dtype=np.float32)
    found = rank_all_items(scores, np.array([4, 5]), from_rows([[1, 3], []]))
    assert triples(found) == [(1, 0, 3), (0, 4, 5)]  # of 2, 4, 5: only 2 is better; all five tied


def test_a_target_bought_before_is_ranked() -> None:
    scores = np.array([[99, 5, 4, 3, 2, 1]], dtype=np.float32)
    assert triples(rank_all_items(scores, np.array([3]), from_rows([[1, 3, 3]]))) == [(1, 0, 4)]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_the_full_ranking_equals_counting_one_by_one(seed: int) -> None:
    """Few different scores, so that many tie; histories that repeat items and may hold the target."""
    draws = np.random.default_rng(seed)
    scores = draws.integers(0, 4, size=(3, 9)).astype(np.float32)
    targets = draws.integers(1, 9, size=3)
    rows = [draws.integers(1, 9, size=draws.integers(0, 7)).tolist() for _ in range(3)]
    found = triples(rank_all_items(scores, targets, from_rows(rows)))
    for own, target, bought, triple in zip(scores, targets, rows, found, strict=True):
        race = [item for item in range(1, 9) if item == target or item not in bought]
        assert triple == slow_rank(own, race, int(target))


def test_a_constant_scorer_gets_chance_among_100_candidates() -> None:
    """SPEC 10.4: HR@10 = 0.10 for every user."""
    splits = split(
        interactions_of(markov_histories(60, 130, 0)),
        splits_config(negatives=99, generation_negatives=0),
    )
    found = evaluate(Constant(splits.num_items), splits, "test")
    assert hit_rate(found.sampled, 10).tolist() == pytest.approx([0.10] * 60)
    assert found.full is not None
    left = splits.num_items - splits.histories("test").lengths
    assert hit_rate(found.full, 10).tolist() == pytest.approx((10 / left).tolist())


def test_a_nan_score_is_an_error(markov_splits: Splits) -> None:
    class SometimesNan(ByHistory):
        def one(self, history: list[int]) -> np.ndarray:
            scores = super().one(history)
            scores[3] = np.nan if len(history) == 7 else 1
            return scores

    with pytest.raises(FloatingPointError, match="NaN"):
        evaluate(SometimesNan(markov_splits.num_items), markov_splits, "test")


@pytest.mark.parametrize("values", [1, 41 * 7, 41 * 299])
def test_results_do_not_depend_on_the_chunk_size(
    markov_splits: Splits, monkeypatch: pytest.MonkeyPatch, values: int
) -> None:
    ranker = ByHistory(markov_splits.num_items)
    whole = evaluate(ranker, markov_splits, "test")
    monkeypatch.setattr(protocol, "SCORES_BYTES", 4 * values)
    ranker.calls.clear()
    parts = evaluate(ranker, markov_splits, "test")
    assert triples(parts.sampled) == triples(whole.sampled)
    assert triples(parts.full) == triples(whole.full)
    assert max(ranker.calls) == max(1, values // 41)


def test_selected_rows_have_the_ranks_of_all_rows(markov_splits: Splits) -> None:
    ranker = ByHistory(markov_splits.num_items)
    rows = np.array([250, 3, 77])
    whole, some = (
        evaluate(ranker, markov_splits, "valid", rows=chosen, full=chosen is None)
        for chosen in (None, rows)
    )
    assert triples(some.sampled) == [triples(whole.sampled)[row] for row in rows]
    assert some.full is None


def test_replaced_histories_are_scored_and_the_original_purchases_excluded(
    markov_splits: Splits,
) -> None:
    """Row for row: a user is scored by the history that is given, and never ranked among what it has bought."""
    true = markov_splits.histories("test")
    rows = [[1 + row % 5] for row in range(len(true))]
    ranker = ByHistory(markov_splits.num_items)
    found = evaluate(ranker, markov_splits, "test", histories=from_rows(rows))
    targets = markov_splits.candidates["test"].targets
    slow = []
    for row in range(len(true)):
        unseen = [item for item in range(1, 41) if item not in true[row]]
        slow.append(slow_rank(ranker.one(rows[row]), unseen, int(targets[row])))
    assert triples(found.full) == slow


@pytest.mark.parametrize("k", [1, 10, 50])  # 50: more than there are items
def test_lists_are_the_first_of_the_full_ranking(markov_splits: Splits, k: int) -> None:
    """Against a sort of the items that were not bought: by score, then by index."""
    ranker, histories = ByHistory(markov_splits.num_items), markov_splits.histories("test")
    found = evaluate(ranker, markov_splits, "test", top_k=k)
    targets = markov_splits.candidates["test"].targets
    assert found.full is not None
    for row, target in enumerate(targets):
        history = histories[row].tolist()
        scores = ranker.one(history)
        unseen = [item for item in range(1, 41) if item not in history]
        first = sorted(unseen, key=lambda item: (-scores[item], item))[:k]
        assert found.lists[row].tolist() == first + [0] * (k - len(first))
        if found.full.better[row] + found.full.ties[row] < k:  # sure to be among the first k
            assert target in found.lists[row]
