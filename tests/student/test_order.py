"""Teacher and student lose under shuffling only where order decides what comes next (specification 10.8)."""

from typing import Any

import numpy as np
import pytest

from llmsrec.backbones.small import build_small
from llmsrec.core.files import write_json
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import Popularity
from llmsrec.evaluation.per_user import EvaluationConfig, UserMetrics, evaluate_all, summarise
from llmsrec.llm.backbone import Backbone, BackboneConfig, load_backbone
from llmsrec.llm.pretrained import folder_digest
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.preprocessing.splitting import split
from llmsrec.ranking.ranker import Ranker
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import train_teacher
from llmsrec.student.trainer import train_student
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from tests.conftest import MADE_UP, interactions_of, splits_config, with_texts
from tests.sequential.test_trainer import teacher_config
from tests.student.test_exact import student_config

EVALUATION = EvaluationConfig(bootstrap=500, shuffles=2, shuffle_window=None, seed=0)


def taste_histories(users: int, items: int, seed: int) -> dict[str, list[str]]:
    """A user buys from one of four shelves, in any order: exchangeable."""
    draws = np.random.default_rng(seed)
    shelf, histories = items // 4, {}
    for user in range(users):
        first = shelf * int(draws.integers(4))
        places = draws.permutation(shelf)[:7]
        histories[f"U{user:04d}"] = [f"I{first + place:03d}" for place in places]
    return histories


def splits_of(histories: dict[str, list[str]]) -> Splits:
    return with_texts(split(interactions_of(histories), splits_config(generation_negatives=0)))


@pytest.fixture(scope="module")
def reader(markov_splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A small backbone trained on the titles, which are the same in both datasets."""
    folder = tmp_path_factory.mktemp("reader")
    config = BackboneConfig(
        model="small", revision=None, dtype="float32", layers=None, num_layers=2, hidden_size=64, num_heads=2,
        vocabulary_size=400, max_positions=1024, steps=120, batch_tokens=1024, learning_rate=3e-3,
        seed=0,
    )  # fmt: skip
    build_small(markov_splits.catalog, config, folder / "model")
    digest = folder_digest(folder / "model")
    place = {"kind": "small", "location": "model", "revision": digest, "dtype": "float32"}
    write_json(folder / "backbone.json", place)
    return load_backbone(folder)


@pytest.fixture(scope="module")
def markov_teacher(markov_splits: Splits) -> SASRec:
    return teacher_of(markov_splits)


def teacher_of(splits: Splits) -> SASRec:
    taught = teacher_config(epochs=30, batch_size=64, embedding_size=16, dropout=0.1)
    return train_teacher(splits, taught, MetricLog(), Checkpoints(None, ""))


def evaluated(splits: Splits, teacher: SASRec, backbone: Backbone, **changes: Any) -> UserMetrics:
    """Teacher and a student of these settings, beside popularity, with true and shuffled histories."""
    settings: dict[str, Any] = {
        "examples": "auto_regressive", "batch_size": 32, "epochs": 8, "learning_rate": 3e-3,
        "shared_size": 16, "head_size": 64, "lr_schedule": "cosine", "validation_users": 50,
    }  # fmt: skip
    config = student_config(**settings | changes)
    student = train_student(splits, teacher, backbone, config, MetricLog(), Checkpoints(None, ""))
    rankers: dict[str, Ranker] = {
        "popularity": Popularity(splits),
        "teacher": SequentialRanker(teacher),
        "student": RetrievalRanker(student, encode_items(student, splits.num_items)),
    }
    return evaluate_all(rankers, splits, EVALUATION)


def cost_of_shuffling(found: UserMetrics, splits: Splits) -> dict[str, dict[str, Any]]:
    """What teacher and student lose in NDCG@10 among the candidates."""
    differences = summarise(found.table, splits, EVALUATION, "made up")["differences"]
    return {
        row["b"]: row
        for row in differences
        if row["a"] == f"{row['b']}_shuffled" and row["protocol"] == "sampled"
    }


@pytest.mark.slow
def test_shuffling_costs_teacher_and_student_on_ordered_data(
    markov_splits: Splits, markov_teacher: SASRec, reader: Backbone
) -> None:
    """A student trained on last purchases only, without distillation and uniformity, has more similar users."""
    actual = evaluated(markov_splits, markov_teacher, reader)
    lost = cost_of_shuffling(actual, markov_splits)
    assert lost["teacher"]["high"] < -0.2
    assert lost["student"]["high"] < -0.05
    bare = {"examples": "last_item", "distillation_weight": 0.0, "uniformity_weight": 0.0}
    baseline = evaluated(markov_splits, markov_teacher, reader, **bare)
    assert baseline.similarity["student"].mean() > actual.similarity["student"].mean() + 0.2


@pytest.mark.slow
def test_shuffling_costs_nothing_on_unordered_data(reader: Backbone) -> None:
    splits = splits_of(taste_histories(300, 40, MADE_UP))
    actual = evaluated(splits, teacher_of(splits), reader)
    for row in cost_of_shuffling(actual, splits).values():
        assert abs(row["value"]) < 0.05
