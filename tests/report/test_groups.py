"""Groups of users in stores small enough to count by hand."""

import numpy as np

from llmsrec.data.splits import Splits
from llmsrec.preprocessing.splitting import split
from llmsrec.report.groups import (
    all_groups,
    by_target,
    by_transitions,
    tied_at_median,
    transition_scores,
    warm_and_cold,
)
from tests.conftest import interactions_of, splits_config


def counted(splits: Splits) -> dict[int, int]:
    found, counts = np.unique(splits.train.items, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def test_as_many_items_are_warm_as_cold_and_ties_go_by_index() -> None:
    """Of eight items two are warm and two are cold: 35% of 8, rounded down."""
    histories = {
        "a": ["A", "B", "C", "D", "G", "H"],
        "b": ["A", "B", "C", "E", "H", "G"],
        "c": ["A", "B", "F", "D", "E", "G"],
        "d": ["A", "C", "B", "F", "D", "E"],
    }
    config = splits_config(negatives=1, generation_negatives=0)
    splits = split(interactions_of(histories), config)
    ids = splits.catalog.items.set_index("item_index")["item_id"]
    by_id = {ids[index]: count for index, count in counted(splits).items()}
    assert by_id == {"A": 4, "B": 4, "C": 3, "D": 2, "E": 1, "F": 2}
    warm, cold = warm_and_cold(splits)
    assert sorted(ids[warm]) == ["A", "B"]
    assert sorted(ids[cold]) == ["G", "H"]  # never trained on

    groups = by_target(splits, "test")
    asked = [ids[item] for item in splits.candidates["test"].targets]
    assert asked == ["H", "G", "G", "E"]
    assert groups["cold"].tolist() == [True, True, True, False]
    assert not groups["warm"].any()


HISTORIES = {  # the last two purchases of each are held out
    "a": ["A", "B", "C", "A", "D", "E"],
    "b": ["A", "B", "D", "C"],
    "c": ["B", "C", "E", "D"],
    "d": ["E", "D", "A", "B"],
    "e": ["D", "A", "B"],
    "f": ["F", "G", "H"],
}


def toy() -> Splits:
    config = splits_config(user_threshold=1, item_threshold=1, negatives=1, generation_negatives=0)
    return split(interactions_of(HISTORIES), config)


def test_transition_scores_of_a_toy_dataset() -> None:
    """Train: a: A B C A, b: A B, c: B C, d: E D, e: D, f: F. A->B twice, B->C twice, C->A once, E->D once."""
    splits = toy()
    scores = dict(zip(splits.user_ids, transition_scores(splits.train).tolist(), strict=True))
    alone = transition_scores(splits.train, exclude_self=True)
    others = dict(zip(splits.user_ids, alone.tolist(), strict=True))
    for user in ("e", "f"):  # nothing follows their only purchase
        assert np.isnan(scores.pop(user))
        assert np.isnan(others.pop(user))
    assert scores == {"a": (2 + 2 + 1) / 3, "b": 2, "c": 2, "d": 1}
    assert others == {"a": (1 + 1 + 0) / 3, "b": 1, "c": 1, "d": 0}


def test_the_better_half_are_transition_users_and_ties_go_by_id() -> None:
    splits = toy()
    groups = by_transitions(splits, "test")
    users = [splits.user_ids[user] for user in splits.evaluated("test").users]
    named = {
        name: [user for user, inside in zip(users, mask, strict=True) if inside]
        for name, mask in groups.items()
    }
    assert named == {"transition": ["b", "c"], "non-transition": ["a", "d"]}
    assert tied_at_median(splits, "test") == 1


def test_deciles_and_activity_divide_all_users(markov_splits: Splits) -> None:
    """Against a plain count of what each group should hold."""
    groups = all_groups(markov_splits, "test")
    targets = markov_splits.candidates["test"].targets
    for name in ("popularity", "activity"):
        inside = np.stack(list(groups[name].values()))
        assert (inside.sum(axis=0) == 1).all()
    counts = np.bincount(markov_splits.train.items, minlength=markov_splits.num_items + 1)
    first, last = groups["popularity"]["1"], groups["popularity"]["10"]
    assert counts[targets[first]].min() >= counts[targets[last]].max()
    lengths = markov_splits.histories("test").lengths
    short, middle, long = groups["activity"].values()
    assert lengths[short].max() < min(lengths[middle | long])
