"""The Python API of docs/api.md: from a data frame of interactions to recommendations, without Dagster or DVC."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import llmsrec
from reliability.project import SMALL
from tests.conftest import DAY, markov_histories


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The project's params.yaml with settings small enough for seconds."""
    document = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    for section, values in SMALL.items():
        document[section] |= {
            key: value for key, value in values.items() if key in document[section]
        }
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


@pytest.fixture(scope="module")
def interactions() -> pd.DataFrame:
    rows = [
        (user, item, (18_000 + place) * DAY)
        for user, items in markov_histories(40, 30, 0).items()
        for place, item in enumerate(items)
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])


@pytest.fixture(scope="module")
def splits(params: str, interactions: pd.DataFrame) -> llmsrec.Splits:
    items = pd.DataFrame({"item_id": sorted(interactions["item_id"].unique())})
    items["title"] = "Thing " + items["item_id"]
    return llmsrec.split_interactions(interactions, items, params=params)


def test_the_last_two_purchases_of_each_user_are_held_out(
    splits: llmsrec.Splits, interactions: pd.DataFrame
) -> None:
    user = splits.user_ids[0]
    bought = interactions[interactions["user_id"] == user].drop_duplicates("item_id")["item_id"]
    last = splits.sequences[0][-1]
    assert splits.catalog.item_id(int(last)) == bought.iloc[-1]
    assert splits.train_lengths[0] == len(splits.sequences[0]) - 2
    assert splits.catalog.titles[1] == "Thing I000"


def test_a_data_frame_becomes_a_recommender(
    splits: llmsrec.Splits, params: str, tmp_path: Path
) -> None:
    folder = str(tmp_path / "trained")
    teacher = llmsrec.train_teacher(splits, params=params)
    backbone = llmsrec.build_backbone(splits, f"{folder}/backbone", params=params)
    student = llmsrec.train_student(splits, teacher, backbone, params=params, epochs=1)
    llmsrec.save(student, splits, folder)
    recommender = llmsrec.load(folder)
    history = [splits.catalog.item_id(1), splits.catalog.item_id(2)]
    items = recommender.recommend(history, 3)
    assert [item.rank for item in items] == [1, 2, 3]
    assert not {item.item_id for item in items} & set(history)
    ranker = llmsrec.rank_with(student, splits)
    scores = ranker.score(splits.histories("test"))
    again = llmsrec.load_splits(f"{folder}/splits")
    np.testing.assert_array_equal(scores, ranker.score(again.histories("test")))


class ById:
    """A ranker of the user's own: items with a small index first."""

    def __init__(self, num_items: int) -> None:
        self.num_items = num_items

    def score(self, histories: llmsrec.Sequences) -> np.ndarray:
        return np.tile(-np.arange(self.num_items + 1, dtype=np.float32), (len(histories), 1))


def test_any_ranker_is_evaluated_beside_a_teacher(splits: llmsrec.Splits, params: str) -> None:
    teacher = llmsrec.rank_with(llmsrec.train_teacher(splits, params=params, epochs=2), splits)
    table = llmsrec.evaluate(
        {"teacher": teacher, "by id": ById(splits.num_items)}, splits, params=params
    )
    assert {"teacher", "by id"} <= set(table["system"])
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    of_id = table[(table["system"] == "by id") & (table["protocol"] == "full")]
    targets = splits.candidates["test"].targets
    histories = splits.histories("test")
    ranks = [
        sum(item not in histories[row] for item in range(1, target)) + 1
        for row, target in enumerate(targets.tolist())
    ]
    expected = np.mean([rank <= 10 for rank in ranks])
    assert of_id[of_id["metric"] == "hr@10"]["value"].item() == pytest.approx(expected)


def test_the_error_names_missing_columns(
    interactions: pd.DataFrame, params: str, tmp_path: Path
) -> None:
    with pytest.raises(llmsrec.DataError, match="lacks the columns timestamp"):
        llmsrec.split_interactions(interactions.drop(columns="timestamp"), params=params)
    with pytest.raises(llmsrec.ConfigError, match=r"splits\.thresholds is unknown"):
        llmsrec.split_interactions(interactions, params=params, thresholds=3)
    with pytest.raises(llmsrec.ArtifactError, match="holds no trained recommender"):
        llmsrec.load(str(tmp_path))
    with pytest.raises(AttributeError, match="no attribute 'recommend'"):
        _ = llmsrec.recommend


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"timestamp": lambda t: t // 1000}, "in row 0; it looks like seconds; expected milliseconds"),
        ({"timestamp": lambda t: t * 1000}, "in row 0; it looks like microseconds; expected"),
        ({"timestamp": lambda t: pd.to_datetime(t, unit="ms")}, "in row 0; expected milliseconds"),
        ({"timestamp": lambda t: t.astype(str)}, "in row 0; expected milliseconds"),
        ({"timestamp": lambda t: t.astype(float)}, "in row 0; expected milliseconds"),
        ({"timestamp": lambda t: t.where(t.index != 2)}, "timestamp is missing in row 2"),
        ({"user_id": lambda ids: ids.where(ids.index != 3)}, "user_id is missing in row 3"),
        ({"item_id": lambda ids: ids.where(ids.index != 1)}, "item_id is missing in row 1"),
    ],
)  # fmt: skip
def test_values_that_conversion_would_change_are_refused(
    interactions: pd.DataFrame, params: str, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(llmsrec.DataError) as caught:
        llmsrec.split_interactions(interactions.assign(**{
            column: read(interactions[column]) for column, read in change.items()
        }), params=params)  # fmt: skip
    assert said in str(caught.value)
