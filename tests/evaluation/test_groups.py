"""Warm and cold items of a store small enough to count by hand."""

import numpy as np

from llmsrec.data.splits import Splits
from llmsrec.data.splitting import split
from llmsrec.evaluation.groups import by_target, warm_and_cold
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
