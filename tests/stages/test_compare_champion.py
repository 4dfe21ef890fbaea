"""A challenger that learned from spoilt histories is refused; a champion ranks items that it never saw."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import read_json, sha256, write_json
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.serving.leakage import TRAINING_INTERACTIONS, training_interactions
from llmsrec.serving.recommender import Recommender
from llmsrec.stages import compare_champion


@pytest.fixture
def found(
    tmp_path: Path, params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict]:
    params(evaluation={"bootstrap": 200})
    monkeypatch.chdir(tmp_path)

    def run(challenger: Path, champion: Path) -> dict:
        model = sha256(challenger / "recommender/config.json")
        write_json(tmp_path / "gates.json", {"success": True, "results": [], "model": model})
        compare_champion.main(["--artifacts", str(challenger), "--champion", str(champion),
                      "--gates", "gates.json", "--out", "found.json"])  # fmt: skip
        return read_json(tmp_path / "found.json")

    return run


def test_a_challenger_trained_on_shuffled_histories_is_refused(
    found: Callable[..., dict], trained_dataset: Path, shuffled_dataset: Path
) -> None:
    decision = found(shuffled_dataset, trained_dataset)
    assert decision["promote"] is False, decision
    assert decision["why"].startswith("it is worse than the champion: sampled NDCG@10 0.")
    assert decision["ndcg@10"]["sampled"]["difference"]["high"] < -0.02, decision
    assert found(trained_dataset, shuffled_dataset)["promote"] is True


def test_a_champion_against_itself_differs_by_nothing(
    found: Callable[..., dict], trained_dataset: Path
) -> None:
    decision = found(trained_dataset, trained_dataset)
    assert decision["promote"] is True
    nothing = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert [decision["ndcg@10"][p]["difference"] for p in ("sampled", "full")] == [nothing] * 2


def test_an_older_champion_ranks_today_s_catalog(
    trained_dataset: Path, markov_splits: Splits
) -> None:
    """In another order, one item with another title, and one that is new."""
    champion = Recommender.load(trained_dataset)
    items = markov_splits.catalog.items.iloc[::-1].reset_index(drop=True)
    new = items.iloc[[0]].assign(item_id="NEW", title="Thing number 900")
    items.loc[3, "title"] = "Something else"
    today = pd.concat([items, new], ignore_index=True)
    today["item_index"] = np.arange(1, len(today) + 1)
    moved_to = champion.for_catalog(Catalog(today))
    first, second = (recommender.parts.student for recommender in (champion, moved_to))
    before, after = (ranker.item_vectors[1:].numpy() for ranker in (first, second))
    same = np.delete(np.arange(40), 3)
    np.testing.assert_array_equal(after[same], before[::-1][same])
    assert not np.allclose(after[3], before[::-1][3])
    table, taught = (m.model.teacher.item_table for m in (second, first))
    np.testing.assert_allclose(table[-1], taught[1:].mean(dim=0), atol=1e-6)
    own = from_rows([[1, 2, 3], [9]])
    moved = replace(own, items=41 - own.items)
    np.testing.assert_allclose(second.user_vectors(moved), first.user_vectors(own), atol=1e-4)
    unchanged = np.delete(np.arange(1, 41), 3)
    np.testing.assert_allclose(
        moved_to.ranker.score(moved)[:, unchanged],
        champion.ranker.score(own)[:, 41 - unchanged],
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    assert moved_to.fitted.purchases[-1] == 0
    assert moved_to.fitted.purchases.sum() == champion.fitted.purchases.sum()


def test_gates_of_another_recommender_are_ignored(
    found: Callable[..., dict], tmp_path: Path, trained_dataset: Path
) -> None:
    write_json(tmp_path / "gates.json", {"success": True, "results": [], "model": "another"})
    with pytest.raises(ArtifactError, match="judges another recommender"):
        compare_champion.main(
            ["--artifacts", str(trained_dataset), "--gates", "gates.json", "--out", "c.json"]
        )


def test_users_whose_purchase_the_champion_was_trained_on_are_left_out(
    found: Callable[..., dict], tmp_path: Path, trained_dataset: Path, markov_splits: Splits
) -> None:
    """Twenty of today's test purchases stand among what it has seen."""
    champion = tmp_path / "champion"
    shutil.copytree(trained_dataset, champion, symlinks=True)
    users = markov_splits.evaluated("test").users[:20]
    items = markov_splits.candidates["test"].targets[:20]
    more = replace(
        markov_splits,
        sequences=from_rows([[int(item)] for item in items]),
        user_ids=[markov_splits.user_ids[user] for user in users],
        train_lengths=np.ones(20, np.int64),
    )
    np.save(
        champion / TRAINING_INTERACTIONS,
        np.union1d(training_interactions(markov_splits), training_interactions(more)),
    )
    decision = found(trained_dataset, champion)
    assert decision["left_out_users"] == 20
    assert decision["why"].endswith("; without 20 users whose target it was trained on")
    assert found(trained_dataset, trained_dataset)["left_out_users"] == 0
