"""Commands of experiments/ at tiny scale."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments import students
from experiments.__main__ import COMMANDS, main
from experiments.case_study import cases
from experiments.study import Arm
from experiments.tables import Cell
from llmsrec.comparison import published
from llmsrec.comparison.shuffled import ShuffledTraining
from llmsrec.core.files import read_json
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.sasrec import SASRec, SASRecConfig

ROOT = Path(__file__).parents[1]


def write_params(folder: Path) -> None:
    """The project's settings, small enough to train in seconds."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["teacher"] |= {"epochs": 4, "embedding_size": 8}
    document["student"] |= {"epochs": 1, "head_size": 16, "shared_size": 8, "validation_users": 20}
    document["evaluation"] |= {"bootstrap": 50}
    (folder / "params.yaml").write_text(yaml.safe_dump(document))


def test_each_preset_is_trained_once_and_shown(
    few_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "presets").mkdir()
    for name in ("strong", "paper"):
        values = yaml.safe_load((ROOT / "presets" / f"{name}.yaml").read_text())["teacher"]
        short = {**values, "epochs": 2, "embedding_size": 8}
        (tmp_path / "presets" / f"{name}.yaml").write_text(yaml.safe_dump({"teacher": short}))
    few_splits.save(tmp_path / "artifacts/tiny/splits")

    main(["teachers", "--dataset", "tiny"])
    first = capsys.readouterr().out
    found = read_json(tmp_path / "scratch/teachers/tiny/metrics.json")["systems"]
    assert list(found) == [
        "popularity", "markov", "markov_unordered", "teacher (strong)", "teacher (paper)",
    ]  # fmt: skip
    assert found["teacher (strong)"] != found["teacher (paper)"]

    monkeypatch.setattr("llmsrec.sequential.trainer.train", None)  # calling it again would fail
    main(["teachers", "--dataset", "tiny"])
    assert capsys.readouterr().out == first
    assert f"{found['markov']['full']['ndcg@10']['value']:.4f}" in first


def test_students_of_two_seeds_are_trained_once_and_set_against_their_teachers(
    few_splits: Splits,
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    monkeypatch.chdir(tmp_path)
    argv = ["user_vector", "--dataset", "tiny", "--seeds", "0", "1", "--set", "learning_rate=0.002"]
    write_params(tmp_path)
    few_splits.save(tmp_path / "artifacts/tiny/splits")
    (tmp_path / "artifacts/tiny/backbone").symlink_to(small_backbone)

    main(argv)
    first = capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "reports/experiments/user_vector/tiny.csv").fillna(
        {"minus": "", "variant": ""}
    )
    assert {
        "dataset",
        "model",
        "variant",
        "metric",
        "value",
        "low",
        "high",
        "seeds",
        "users",
    } < set(rows)
    names = rows["model"] + " " + rows["variant"] + " " + rows["test"]
    assert set(zip(names, rows["minus"], strict=True)) == {
        *((f"{name} {test}", "") for name in ("teacher ", "student full", "student user_vector")
          for test in ("original", "shuffled")),
        ("teacher  shuffled", "teacher"), ("student full shuffled", "student"),
        ("student user_vector shuffled", "student, user_vector"), ("student full original", "teacher"),
        ("student user_vector original", "teacher"), ("student user_vector original", "student"),
    }  # fmt: skip
    assert (rows["beside"] == "not comparable").all()
    assert "no store of the paper" in first
    at = rows.assign(name=names).set_index(["name", "minus", "group", "protocol", "metric"])[
        "value"
    ]
    for key in [
        ("all", "sampled", "ndcg@10"),
        ("cold", "full", "hr@10"),
        ("transition", "full", "ndcg@20"),
    ]:
        assert at["student full original", "teacher", *key] == pytest.approx(
            at["student full original", "", *key] - at["teacher  original", "", *key]
        )
        cost = at["teacher  shuffled", "", *key] - at["teacher  original", "", *key]
        assert at["teacher  shuffled", "teacher", *key] == pytest.approx(cost)
    assert (rows["seeds"] == 2).all()
    assert (rows["low"] <= rows["high"]).all()
    assert (rows["lowest_seed"] <= rows["value"] + 1e-9).all()
    assert len(list((tmp_path / "scratch/students/tiny").glob("*/model"))) == 6

    monkeypatch.setattr("llmsrec.sequential.trainer.train", None)  # calling them again would fail
    monkeypatch.setattr("llmsrec.student.trainer.train", None)
    main(argv)
    assert capsys.readouterr().out == first


def test_what_the_paper_has_stands_beside_it(tmp_path: Path) -> None:
    """SPEC 10.11, by numbers read from its tables: 3, 5, 6, 8, 11, 12 and figures 1b, 3, 4, 7."""
    student, teacher = Arm("full"), Arm("teacher")
    last, every = Arm("last_item"), Arm("auto_regressive")
    expected = [
        ("overall", "Electronics", Cell(student), "all", "ndcg@10", 0.3044),
        ("overall", "Movies_and_TV", Cell(teacher), "all", "ndcg@10", 0.3459),
        ("overall", "CDs_and_Vinyl", Cell(student, "shuffled"), "all", "ndcg@10", 0.3635),
        ("overall", "CDs_and_Vinyl", Cell(student, "shuffled"), "all", "cosine", 0.8589),
        ("overall", "CDs_and_Vinyl", Cell(student), "transition", "ndcg@10", 0.3917),
        ("overall", "Industrial_and_Scientific", Cell(teacher), "cold", "ndcg@10", 0.1226),
        ("ablation", "Industrial_and_Scientific", Cell(Arm("neither")), "all", "ndcg@10", 0.3088),
        ("ablation", "Industrial_and_Scientific", Cell(Arm("no_uniformity")), "all", "ndcg@10", 0.3283),
        ("user_vector", "Movies_and_TV", Cell(Arm("user_vector")), "all", "ndcg@10", 0.3625),
        ("contrastive", "Electronics", Cell(Arm("contrastive")), "all", "ndcg@10", 0.2553),
        ("auto_regressive", "Electronics", Cell(every), "all", "ndcg@10", 0.3129),
        ("auto_regressive", "Electronics", Cell(every, "shuffled"), "all", "ndcg@10", 0.2972),
        ("auto_regressive", "Electronics", Cell(last), "all", "ndcg@10", 0.3044),
        ("overall", "Electronics", Cell(student), "all", "hr@1", None),
        ("overall", "Toys_and_Games", Cell(student), "all", "ndcg@10", None),
        ("ablation", "Electronics", Cell(student, "shuffled"), "all", "ndcg@10", None),
    ]  # fmt: skip
    for experiment, dataset, cell, group, metric, value in expected:
        assert students.in_paper(experiment, dataset)(cell, group, metric) == value, cell
    own, original = (
        students.in_paper("shuffled_training", "Electronics")(
            Cell(Arm("full", train)), "all", "ndcg@10"
        )
        for train in ("shuffled", "original")
    )
    assert 100 * (own / original - 1) == pytest.approx(-6.77, abs=0.01)
    assert published.verdict("Electronics", 0.3, 0.2, 0.4) == "inside"
    assert published.verdict("Electronics", 0.5, 0.2, 0.4) == "outside"
    assert published.verdict("Electronics", None, 0.2, 0.4) == ""
    assert published.verdict("Toys_and_Games", None, 0.2, 0.4) == "not comparable"


def test_training_on_shuffled_histories_leaves_what_is_evaluated_as_it_is(
    markov_splits: Splits,
) -> None:
    """SPEC 10.5: stable whenever it is asked, the same purchases of each user, another order, the same times."""
    shuffled = ShuffledTraining.of(markov_splits, 0)
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
    few_splits: Splits,
    small_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    """The target is the source itself: with `shared` vectors the student is the one that was taught."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    for name in ("home", "abroad"):
        few_splits.save(tmp_path / f"artifacts/{name}/splits")
    (tmp_path / "artifacts/home/backbone").symlink_to(small_backbone)
    main(["cross_domain", "--source", "home", "--target", "abroad"])
    assert "home->abroad, 40 items in both" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "reports/experiments/cross_domain/home-abroad.csv")
    abroad = rows.set_index(["model", "metric"])["value"]

    main(["overall", "--dataset", "home", "--seeds", "0"])
    rows = pd.read_csv(tmp_path / "reports/experiments/overall/home.csv").fillna(
        {"minus": "", "variant": ""}
    )
    home = rows[(rows["group"] == "all") & (rows["protocol"] == "sampled") & (rows["minus"] == "")]
    home = home[home["test"] == "original"].set_index(["variant", "metric"])["value"]
    assert abroad["student, shared", "ndcg@10"] == pytest.approx(home["full", "ndcg@10"])
    assert abroad["student, mean", "ndcg@10"] != pytest.approx(home["full", "ndcg@10"])


def test_statistics_stand_beside_the_paper_s_where_it_has_the_store(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Electronics", "own"):
        markov_splits.save(tmp_path / f"artifacts/{name}/splits")
    main(["statistics", "--datasets", "Electronics", "own"])
    assert "300 (paper 27,601)" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "reports/experiments/statistics/Electronics-own.csv").set_index(
        ["dataset", "metric"]
    )
    assert rows.loc[("own", "users"), "value"] == rows.loc[("Electronics", "users"), "value"] == 300
    assert rows["paper"].notna().sum() == 3
    mean = rows.loc[("own", "mean_length"), "value"]
    assert mean == pytest.approx(markov_splits.sequences.lengths.mean(), abs=1e-3)


def test_a_case_is_who_ranks_the_next_purchase_first(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted again from the ranks of each model."""
    teacher, student = (OneTrick(markov_splits, seed) for seed in (0, 1))
    found = cases(markov_splits, teacher, student)
    first = [
        hit_rate(evaluate(ranker, markov_splits, "test", full=False).sampled, 1) == 1
        for ranker in (teacher, student)
    ]
    counts = found["ranked_first_by"].value_counts()
    assert counts["student alone"] == (first[1] & ~first[0]).sum() > 0
    assert counts["both"] == (first[1] & first[0]).sum()
    assert counts["teacher alone"] == (first[0] & ~first[1]).sum()
    alone = found[found["ranked_first_by"] == "student alone"]
    assert (alone["student_first"] == alone["next_purchase"]).all()
    assert (alone["teacher_first"] != alone["next_purchase"]).all()


class OneTrick:
    """Vectors that know the next purchase of some users, and nothing of the others."""

    def __init__(self, splits: Splits, seed: int) -> None:
        self.splits, self.draws = splits, np.random.default_rng(seed)
        self.items = np.eye(splits.num_items + 1, dtype=np.float32)

    def user_vectors(self, histories: Any) -> np.ndarray:
        draws = np.random.default_rng(self.draws.bit_generator.seed_seq.entropy)  # type: ignore[attr-defined]
        guesses = draws.integers(1, self.splits.num_items + 1, len(histories))
        known = draws.random(len(histories)) < 0.5
        targets = self.splits.candidates["test"].targets
        noise = draws.random((len(histories), self.splits.num_items + 1)).astype(np.float32) / 2
        return noise + self.items[np.where(known, targets, guesses)]

    def score_users(self, users: np.ndarray) -> np.ndarray:
        return users @ self.items.T

    def score_candidates(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self.score_users(users), items, axis=1)

    def score(self, histories: Any) -> np.ndarray:
        return self.score_users(self.user_vectors(histories))


def test_time_is_told_of_each_system(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path)
    markov_splits.save(tmp_path / "artifacts/tiny/splits")
    SASRec(SASRecConfig(markov_splits.num_items, 8, 1, 1, 0.1, "pre", 32, "standard")).save(
        tmp_path / "artifacts/tiny/teacher"
    )
    main(["timing", "--dataset", "tiny", "--steps", "2", "--systems", "sasrec,popularity"])
    assert "ratios to sasrec" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "reports/experiments/timing/tiny.csv")
    told = rows.set_index(["system", "metric"])["value"]
    for system in ("sasrec", "popularity"):
        parts = told[system, "prepare_min"] + told[system, "users_min"]
        assert told[system, "inference_min"] == pytest.approx(parts)
        assert told[system, "peak_memory_mb"] > 50
    assert told["sasrec", "steps_per_epoch"] == 3  # 300 users, 128 a step
    assert told["sasrec", "train_min_per_epoch"] > told["popularity", "train_min_per_epoch"] == 0


def test_an_experiment_that_is_not_there_is_answered_with_those_that_are(capsys: Any) -> None:
    main([])
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)
    with pytest.raises(SystemExit, match="no experiment 'ablations'"):
        main(["ablations"])


def test_the_pipeline_of_experiments_runs_what_there_is() -> None:
    """Every stage is a command with that name, and writes where that command writes."""
    stages = yaml.safe_load((ROOT / "experiments/dvc.yaml").read_text())["stages"]
    studies = stages.pop("students")
    others = {"backbone_size", "teachers", "warm_start"}  # which need more than a store
    assert {*studies["matrix"]["name"], *stages} == set(COMMANDS) - others
    for name, stage in {**stages, "${item.name}": studies}.items():
        assert stage["wdir"] == ".."
        assert stage["cmd"].startswith(f"python -m experiments {name} --")
        assert next(iter(stage["outs"][0])).startswith(f"reports/experiments/{name}/")
