"""The small commands of studies, and the studies of the student, at tiny scale."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain
from llmsrec.llm.backbone import load_backbone
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.student.config import StudentConfig
from llmsrec.student.trainer import train_student
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from studies.__main__ import COMMANDS, main
from studies.case_study import cases
from studies.config import Run, Settings
from studies.training import ShuffledTraining, StudyDataset
from studies.warm_start import History, compared, show

ROOT = Path(__file__).parents[2]
SEEDS = ["--seeds", "0"]


@pytest.fixture
def trained(
    markov_splits: Splits, small_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project folder whose settings are small enough to train in seconds, and the datasets `home` and `abroad`."""
    monkeypatch.chdir(tmp_path)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["teacher"] |= {"epochs": 4, "embedding_size": 8}
    document["student"] |= {"epochs": 1, "head_size": 16, "shared_size": 8, "validation_users": 20}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    document = yaml.safe_load((ROOT / "studies/params.yaml").read_text())
    document["protocol"] |= {"bootstrap": 50, "generation_users": 50}
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/params.yaml").write_text(yaml.safe_dump(document))
    for name in ("home", "abroad"):
        folder = tmp_path / "artifacts" / name
        markov_splits.save(folder / "splits")
        SASRec(SASRecConfig(markov_splits.num_items, 8, 1, 1, 0.1, "pre", 32, "standard", 4)).save(
            folder / "teacher"
        )
        (folder / "backbone").symlink_to(small_backbone)
    return tmp_path


def test_the_student_of_a_study_is_the_one_that_the_pipeline_trains(trained: Path) -> None:
    """The section `student` without a change: the same bits."""
    data = StudyDataset("home", Settings())
    _, student = data.model(Run("llmsrec", "original", 0))
    config = Settings().load(StudentConfig, "student")
    backbone, log = load_backbone(trained / "artifacts/home/backbone", "cpu"), MetricLog()
    teacher = SASRec.load(trained / "artifacts/home/teacher")
    shipped = train_student(data.splits, teacher, backbone, config, log, Checkpoints(None, ""))
    weights: Any = student.heads.state_dict()  # type: ignore[union-attr]
    for name, part in shipped.heads.state_dict().items():
        np.testing.assert_array_equal(part.numpy(), weights[name].numpy(), err_msg=name)


def test_training_on_shuffled_histories_leaves_what_is_evaluated_as_it_is(
    markov_splits: Splits,
) -> None:
    """Specification 10.5: the same purchases and times of each user in another, stable order."""
    shuffled = ShuffledTraining.of(markov_splits, 0)
    original, permuted = markov_splits.train, shuffled.train
    assert np.array_equal(permuted.items, shuffled.train.items)
    assert np.array_equal(permuted.timestamps, original.timestamps)
    assert not np.array_equal(permuted.items, original.items)
    for row in range(len(original)):
        assert sorted(permuted[row].tolist()) == sorted(original[row].tolist())
    for part in ("valid", "test"):
        assert np.array_equal(shuffled.histories(part).items, markov_splits.histories(part).items)
    chains = (MarkovChain(markov_splits), MarkovChain(shuffled))
    ordered, unordered = (
        ndcg(evaluate(c, markov_splits, "test").sampled, 10).mean() for c in chains
    )
    assert unordered < 0.9 * ordered


def test_a_student_on_another_dataset_knows_texts_but_not_items(trained: Path, capsys: Any) -> None:
    """The target is the source itself: with `shared` vectors the student is the one that was trained."""
    main(["cross_domain", "--source", "home", "--target", "abroad", *SEEDS])
    assert "home->abroad, 40 items in both" in capsys.readouterr().out
    rows = pd.read_csv(trained / "reports/studies/cross_domain/home-abroad.csv")
    abroad = rows.set_index(["system", "metric"])["value"]
    assert (rows["versus_paper"] == "not comparable").all()

    main(["shuffled_training", "--dataset", "home", "--orders", "original", *SEEDS])
    rows = pd.read_csv(trained / "reports/studies/shuffled_training/home.csv")
    home = rows[(rows["group"] == "all") & (rows["protocol"] == "sampled") & rows["minus"].isna()]
    home = home[home["test"] == "original"].set_index(["system", "metric"])["value"]
    assert abroad["student, shared", "ndcg@10"] == pytest.approx(home["llmsrec", "ndcg@10"])
    assert abroad["student, mean", "ndcg@10"] != pytest.approx(home["llmsrec", "ndcg@10"])
    # SASRec, the student, item texts, and the hybrid of SASRec and item texts
    assert len(list((trained / "scratch/home/studies").iterdir())) == 4


def test_statistics_have_the_paper_s_where_it_has_the_dataset(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Electronics", "own"):
        markov_splits.save(tmp_path / f"artifacts/{name}/splits")
    main(["statistics", "--datasets", "Electronics", "own"])
    assert "300 (paper 27,601)" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "reports/studies/statistics/Electronics-own.csv").set_index(
        ["dataset", "metric"]
    )
    assert rows.loc[("own", "users"), "value"] == rows.loc[("Electronics", "users"), "value"] == 300
    assert rows["paper"].notna().sum() == 3
    mean = rows.loc[("own", "mean_length"), "value"]
    assert mean == pytest.approx(markov_splits.sequences.lengths.mean(), abs=1e-3)


def test_a_case_is_a_user_whose_next_purchase_is_ranked_first(
    markov_splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted again from the ranks of each model."""
    teacher, student = (OneTrick(markov_splits, seed) for seed in (0, 1))
    table = cases(markov_splits, teacher, student)
    first = [
        hit_rate(evaluate(ranker, markov_splits, "test", full=False).sampled, 1) == 1
        for ranker in (teacher, student)
    ]
    counts = table["ranked_first_by"].value_counts()
    assert counts["student alone"] == (first[1] & ~first[0]).sum() > 0
    assert counts["both"] == (first[1] & first[0]).sum()
    assert counts["teacher alone"] == (first[0] & ~first[1]).sum()
    alone = table[table["ranked_first_by"] == "student alone"]
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


def test_a_warm_start_is_compared_with_a_training_from_scratch(
    trained: Path, markov_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same purchases, so that the two differ by their start alone."""
    history = object.__new__(History)
    history.settings = Settings()
    history.backbone = load_backbone(trained / "artifacts/home/backbone", "cpu")
    monkeypatch.setattr(History, "at", lambda *_: markov_splits)
    monkeypatch.setattr("studies.warm_start.WARM_EPOCHS", 1)
    table = pd.DataFrame(compared(history, pd.Timestamp("2020-01-01"), 1, 0))
    show(table, "title")
    assert len(table) == 12
    values = table.set_index(["system", "protocol", "start"])["value"]
    for system in ("teacher", "student"):
        gap = values[system, "full", "warm"] - values[system, "full", "fresh"]
        assert values[system, "full", "warm - fresh"] == pytest.approx(gap)
    assert (table["users"] == 300).all()
    assert (table["new_share"] == 0).all()


@pytest.mark.slow
def test_each_system_is_timed(trained: Path, capsys: Any) -> None:
    main(["timing", "--dataset", "home", "--steps", "2", "--systems", "sasrec", "popularity"])
    assert "ratios to sasrec" in capsys.readouterr().out
    rows = pd.read_csv(trained / "reports/studies/timing/home.csv")
    values = rows.set_index(["system", "metric"])["value"]
    for system in ("sasrec", "popularity"):
        parts = values[system, "prepare_min"] + values[system, "users_min"]
        assert values[system, "inference_min"] == pytest.approx(parts)
        assert values[system, "peak_memory_mb"] > 50
    assert values["sasrec", "steps_per_epoch"] == 3  # 300 users, 128 a step
    assert (
        values["sasrec", "train_min_per_epoch"] > values["popularity", "train_min_per_epoch"] == 0
    )


@pytest.mark.usefixtures("trained")
def test_an_unknown_study_lists_the_known_ones(capsys: Any) -> None:
    main([])
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*COMMANDS, *Settings().section("studies")))
    with pytest.raises(SystemExit, match="no study 'ablations'"):
        main(["ablations"])
