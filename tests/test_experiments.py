"""Commands of experiments/ at tiny scale."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments import cross_domain, statistics, students, teachers, trained
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain
from llmsrec.evaluation.metrics import ndcg
from llmsrec.evaluation.protocol import evaluate
from llmsrec.files import read_json

ROOT = Path(__file__).parents[1]


def write_params(folder: Path) -> None:
    """The project's settings, small enough to train in seconds."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["teacher"] |= {"epochs": 4, "embedding_size": 8}
    document["student"] |= {"epochs": 1, "head_size": 16, "shared_size": 8, "validation_users": 20}
    document["evaluation"] |= {"bootstrap": 50}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))


def test_each_preset_is_trained_once_and_shown(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["teachers", "--dataset", "tiny"])
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "presets").mkdir()
    for name in ("strong", "paper"):
        values = yaml.safe_load((ROOT / "presets" / f"{name}.yaml").read_text())["teacher"]
        short = {**values, "epochs": 2, "embedding_size": 8}
        (tmp_path / "presets" / f"{name}.yaml").write_text(yaml.safe_dump({"teacher": short}))
    markov_splits.save(tmp_path / "artifacts/tiny/splits")

    teachers.main()
    first = capsys.readouterr().out
    found = read_json(tmp_path / "scratch/teachers/tiny/metrics.json")["systems"]
    assert list(found) == [
        "popularity", "markov", "markov_unordered", "teacher (strong)", "teacher (paper)",
    ]  # fmt: skip
    assert found["teacher (strong)"] != found["teacher (paper)"]

    monkeypatch.setattr(trained, "train_teacher", None)  # calling it again would fail
    teachers.main()
    assert capsys.readouterr().out == first
    assert f"{found['markov']['full']['ndcg@10']['value']:.4f}" in first


def test_students_of_two_seeds_are_trained_once_and_set_against_their_teachers(
    markov_splits: Splits,
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["students", "--dataset", "tiny", "--seeds", "0", "1", "--variants", "full", "neither"]
    monkeypatch.setattr(sys, "argv", [*argv, "--set", "learning_rate=0.002"])
    write_params(tmp_path)
    markov_splits.save(tmp_path / "artifacts/tiny/splits")
    (tmp_path / "artifacts/tiny/backbone").symlink_to(small_backbone)

    students.main()
    first = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "scratch/students/tiny/test.csv").fillna("")
    assert set(zip(rows["model"], rows["minus"], strict=True)) == {
        *((name, "") for name in ("teacher", "full", "neither")),
        *((f"{name}_shuffled", "") for name in ("teacher", "full", "neither")),
        *((f"{name}_shuffled", name) for name in ("teacher", "full", "neither")),
        ("full", "teacher"), ("neither", "full"),
    }  # fmt: skip
    at = rows.set_index(["model", "minus", "group", "protocol", "metric"])["value"]
    for key in [("all", "sampled", "ndcg@10"), ("cold", "full", "hr@10")]:
        assert at["full", "teacher", *key] == pytest.approx(
            at["full", "", *key] - at["teacher", "", *key]
        )
        cost = at["teacher_shuffled", "", *key] - at["teacher", "", *key]
        assert at["teacher_shuffled", "teacher", *key] == pytest.approx(cost)
    assert (rows["seeds"] == 2).all()
    assert (rows["low"] <= rows["high"]).all()
    assert (rows["lowest_seed"] <= rows["value"] + 1e-9).all()
    assert len(list((tmp_path / "scratch/students/tiny").glob("*/model"))) == 6

    monkeypatch.setattr(trained, "train_teacher", None)  # calling them again would fail
    monkeypatch.setattr(trained, "train_student", None)
    students.main()
    assert capsys.readouterr().out == first


def test_training_on_shuffled_histories_leaves_what_is_evaluated_as_it_is(
    markov_splits: Splits,
) -> None:
    """SPEC 10.5: stable whenever it is asked, the same purchases of each user, another order, the same times."""
    shuffled = trained.ShuffledTraining.of(markov_splits, 0)
    true, taught = markov_splits.train, shuffled.train
    assert np.array_equal(taught.items, shuffled.train.items)
    assert np.array_equal(taught.timestamps, true.timestamps)
    assert not np.array_equal(taught.items, true.items)
    for row in range(len(true)):
        assert sorted(taught[row].tolist()) == sorted(true[row].tolist())
    for part in ("valid", "test"):
        assert np.array_equal(shuffled.histories(part).items, markov_splits.histories(part).items)
    chains = (MarkovChain(markov_splits), MarkovChain(shuffled))
    kept, lost = (ndcg(evaluate(c, markov_splits, "test").sampled, 10).mean() for c in chains)
    assert lost < 0.9 * kept


def test_a_student_abroad_knows_the_texts_but_not_the_items(
    markov_splits: Splits,
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """The target is the source itself: with `shared` vectors the student is the one that was taught."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    for name in ("home", "abroad"):
        markov_splits.save(tmp_path / f"artifacts/{name}/splits")
    (tmp_path / "artifacts/home/backbone").symlink_to(small_backbone)
    monkeypatch.setattr(sys, "argv", ["x", "--source", "home", "--target", "abroad"])
    cross_domain.main()
    assert "home->abroad, 40 items in both" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "scratch/cross_domain/home-abroad.csv")
    abroad = rows.set_index(["model", "metric"])["value"]

    monkeypatch.setattr(sys, "argv", ["x", "--dataset", "home"])
    students.main()
    rows = pd.read_csv(tmp_path / "scratch/students/home/test.csv").fillna("")
    home = rows[(rows["group"] == "all") & (rows["protocol"] == "sampled") & (rows["minus"] == "")]
    home = home.set_index(["model", "metric"])["value"]
    assert abroad["student, shared", "ndcg@10"] == pytest.approx(home["full", "ndcg@10"])
    assert abroad["student, mean", "ndcg@10"] != pytest.approx(home["full", "ndcg@10"])


def test_statistics_stand_beside_the_paper_s_where_it_has_the_store(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Electronics", "own"):
        markov_splits.save(tmp_path / f"artifacts/{name}/splits")
    lines = [
        "table,dataset,model,variant,metric,value",
        "Table10,Electronics,-,after,n_users,27601",
        "Table9,Electronics,-,after,n_items,5",
    ]
    (tmp_path / "paper.csv").write_text("\n".join(lines))
    monkeypatch.setattr(
        sys, "argv", ["x", "--datasets", "Electronics", "own", "--paper", "paper.csv"]
    )
    statistics.main()
    assert "300 (paper 27,601)" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "scratch/statistics.csv").set_index(["dataset", "metric"])
    assert rows.loc[("own", "users"), "value"] == rows.loc[("Electronics", "users"), "value"] == 300
    assert rows["paper"].notna().sum() == 1
    mean = rows.loc[("own", "mean_length"), "value"]
    assert mean == pytest.approx(markov_splits.sequences.lengths.mean(), abs=1e-3)
