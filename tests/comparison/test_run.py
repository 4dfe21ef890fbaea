"""What is done is not done again, what was interrupted goes on, and who is asked is the same for all."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmsrec.comparison import run as running
from llmsrec.comparison.cache_keys import code_digest, code_of, encoders_of
from llmsrec.comparison.config import Arm, ComparisonConfig, arms_of
from llmsrec.comparison.outcomes import Outcome
from llmsrec.comparison.run import Store, compare, outcome_of
from llmsrec.core.config import load_section
from llmsrec.core.errors import ConfigError
from llmsrec.core.files import write_json
from llmsrec.data.catalog import Catalog
from llmsrec.evaluation.per_user import METRICS, EvaluationConfig
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.trainer import CausalTrainer, TeacherConfig, train_teacher
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.item_knn import Popularity
from llmsrec.systems.registry import system_of
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog

SASREC = Arm("sasrec", "retrieval", "original", 0)
WRITER = Arm("writer", "generation", "original", 0)


def opened() -> Store:
    config = load_section(ComparisonConfig, "comparison")
    evaluation = load_section(EvaluationConfig, "evaluation")
    artifacts, scratch = Path("artifacts/tiny"), Path("scratch/tiny")
    return Store(artifacts, scratch, Path("params.yaml"), config, evaluation)


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.usefixtures("project")
def test_what_is_found_is_what_the_model_s_ranks_are() -> None:
    """The system by hand: the same training, the same users, the same candidates."""
    store = opened()
    found = outcome_of(store, SASREC)
    config = replace(load_section(TeacherConfig, "teacher"), seed=0)
    model = train_teacher(store.splits, config, MetricLog(), Checkpoints(None, ""))
    true = evaluate(SequentialRanker(model), store.splits, "test")
    at = METRICS.index("ndcg@10")
    np.testing.assert_array_equal(found.values["original_sampled"][:, at], ndcg(true.sampled, 10))
    titles = replace(store.splits, candidates=store.splits.generation_candidates)
    first = hit_rate(evaluate(SequentialRanker(model), titles, "test").sampled, 1)
    assert len(store.asked.rows) == 100
    np.testing.assert_array_equal(found.values["original_generation"], first[store.asked.rows])
    assert found.values["similarity"].mean() < 0.999
    assert found.facts["parameters"] == sum(part.numel() for part in model.parameters())
    assert found.facts["stages"][0]["ended"] == 2


@pytest.mark.parametrize(
    ("selected_by", "kept"),
    [
        ("hr@10", {"ended": 3, "step": 2, "valid hr@10": 0.6}),
        ("ndcg@10", {"ended": 3, "step": 1, "valid ndcg@10": 0.5}),
        (None, {"ended": 3, "step": 3, "valid ndcg@10": 0.4}),
    ],
)
def test_the_look_that_is_told_is_the_one_whose_weights_were_kept(
    selected_by: str | None, kept: dict[str, float]
) -> None:
    looks = [
        {"step": step, "ndcg@10": ndcg, "hr@10": hit}
        for step, ndcg, hit in ((1, 0.5, 0.5), (2, 0.5, 0.6), (3, 0.4, 0.6))
    ]
    assert running._kept(selected_by, looks) == kept


def test_what_is_done_is_not_done_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compare(opened(), [SASREC])
    before = files(project / "artifacts/tiny/systems")
    monkeypatch.setattr(running, "ranked", None)  # calling them again would fail
    monkeypatch.setattr("llmsrec.systems.training.train", None)
    again = compare(opened(), [SASREC])
    assert files(project / "artifacts/tiny/systems") == before
    for name, values in first[SASREC].values.items():
        np.testing.assert_array_equal(again[SASREC].values[name], values)
    assert not list((project / "scratch/tiny/systems/sasrec").iterdir())


def test_a_training_that_was_interrupted_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = outcome_of(opened(), SASREC)
    weights = project / "artifacts/tiny/systems/sasrec/retrieval-original-0/model.safetensors"
    before = weights.read_bytes()
    shutil.rmtree(project / "artifacts/tiny/systems")
    looks, step = [], CausalTrainer.step

    def killed(self: CausalTrainer, number: int) -> dict[str, float]:
        looks.append(number)
        if len(looks) == self.steps_per_epoch + 2:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(CausalTrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        outcome_of(opened(), SASREC)
    again = outcome_of(opened(), SASREC)
    assert looks[len(looks) - 3 :] == [3, 4, 5]  # the second epoch; the first is kept
    assert weights.read_bytes() == before
    assert again.facts == whole.facts


def test_other_settings_of_the_evaluation_train_nothing(
    project: Path, change: Callable[..., None]
) -> None:
    outcome_of(opened(), SASREC)
    folder = project / "artifacts/tiny/systems/sasrec/retrieval-original-0"
    before = files(folder)
    change(comparison={"generation_users": 50})
    assert len(outcome_of(opened(), SASREC).values["original_generation"]) == 50
    assert files(folder)["model.safetensors"] == before["model.safetensors"]
    assert files(folder)["outcome/facts.json"] != before["outcome/facts.json"]


def test_other_settings_of_the_system_train_it_anew(
    project: Path, change: Callable[..., None]
) -> None:
    outcome_of(opened(), SASREC)
    weights = project / "artifacts/tiny/systems/sasrec/retrieval-original-0/model.safetensors"
    before = weights.read_bytes()
    change(systems={"sasrec": {"dropout": 0.3}})
    outcome_of(opened(), SASREC)
    assert weights.read_bytes() != before


def test_a_key_tells_all_that_a_training_reads(project: Path, change: Callable[..., None]) -> None:
    """Descriptions are read too; a number type computes other states; a folder's name stays when its weights change."""
    encoder = project / "encoder"
    encoder.mkdir()
    (encoder / "model.safetensors").write_bytes(b"one")
    change(systems={"sasrec_text": {"encoder": "encoder", "max_tokens": 8, "adapter_size": 4}})
    arm = Arm("sasrec_text", "retrieval", "original", 0)

    def key(given: Any = None) -> str:
        store = opened()
        system = system_of(arm.system, arm.mode, store.params)
        return store.key(arm, system, given or store.given(arm))

    first, given = key(), opened().given(arm)
    assert key() == first
    items = given.splits.catalog.items.copy()
    items.loc[3, "description"] = "Of another kind."
    assert key(replace(given, splits=replace(given.splits, catalog=Catalog(items)))) != first
    (encoder / "model.safetensors").write_bytes(b"two")
    assert key() != first
    (encoder / "model.safetensors").write_bytes(b"one")
    assert key() == first
    backbone = project / "artifacts/tiny/backbone"
    backbone.unlink()
    write_json(backbone / "backbone.json", {"revision": "none", "dtype": "bfloat16"})
    assert key() != first


def test_what_is_built_here_is_no_folder(project: Path) -> None:
    """Whatever lies in the one that the command runs in."""
    (project / "small").mkdir()
    (project / "backbone").mkdir()
    for name in ("recformer", "ctrl", "allmrec", "sasrec"):
        assert encoders_of(system_of(name, "retrieval", project / "params.yaml")) == []


@pytest.mark.usefixtures("project")
def test_shuffled_histories_teach_the_teacher_too() -> None:
    store, arm = opened(), replace(SASREC, order="shuffled")
    true, lost = store.given(SASREC), store.given(arm)
    assert lost.teacher.digest != true.teacher.digest
    assert not np.array_equal(lost.splits.train.items, true.splits.train.items)
    found = outcome_of(store, arm)
    assert not any(
        name.startswith("shuffled_") for name in found.values
    )  # SPEC E4 has no such cell
    again = opened().given(arm)
    assert again.teacher.digest == lost.teacher.digest


def test_an_answer_that_is_no_candidate_is_wrong(writer: Any) -> None:
    """Counted again from what the writer does."""
    store = opened()
    found = outcome_of(store, WRITER)
    shown = store.splits.histories("test").take(store.asked.rows)
    last = np.array([shown[row][-1] for row in range(len(shown))])
    drawn = store.splits.generation_candidates["test"].take(store.asked.rows)
    right = np.where(last % 2 == 0, True, drawn.target_columns == 0) & (last % 3 != 0)
    np.testing.assert_array_equal(found.values["original_generation"], right)
    np.testing.assert_array_equal(found.values["original_valid"], last % 3 != 0)
    assert set(found.values) == {
        f"{order}_{name}" for order in ("original", "shuffled") for name in ("generation", "valid")
    }
    assert found.facts["stages"] == [{"ended": 2, "step": 2, "valid hr@1": 2.0}]


def test_answers_that_were_written_are_not_written_again(
    writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two parts, it goes on with the next."""
    monkeypatch.setattr("llmsrec.comparison.outcomes.ANSWERED", 30)
    answers = writer.answers

    def killed(self: Any, *asked: np.ndarray) -> np.ndarray:
        if writer.calls == 5:
            raise KeyboardInterrupt
        return answers(self, *asked)

    monkeypatch.setattr(writer, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        outcome_of(opened(), WRITER)
    assert writer.calls == 5
    monkeypatch.setattr(writer, "answers", answers)
    outcome_of(opened(), WRITER)
    assert writer.calls == 8  # four parts, as it was and shuffled


@pytest.mark.usefixtures("writer")
def test_a_system_takes_part_in_the_modes_that_it_has() -> None:
    config = load_section(ComparisonConfig, "comparison")
    arms = arms_of(config, ["sasrec", "writer"])
    assert [(arm.system, arm.mode) for arm in arms] == [
        ("sasrec", "retrieval"),
        ("writer", "generation"),
    ]
    with pytest.raises(ConfigError, match="none of writer has a mode of retrieval"):
        arms_of(replace(config, modes=("retrieval",)), ["writer"])


@pytest.mark.usefixtures("project")
def test_a_system_that_is_not_there_is_named(change: Callable[..., None]) -> None:
    change(comparison={"systems": ["sasrec", "deep"]})
    config = load_section(ComparisonConfig, "comparison")
    with pytest.raises(ConfigError, match="no system 'deep'; there are: popularity, item_knn"):
        arms_of(config)
    change(comparison={"systems": []})
    with pytest.raises(ConfigError, match="systems is empty"):
        load_section(ComparisonConfig, "comparison")


def test_the_code_of_a_system_is_followed_by_its_imports(tmp_path: Path) -> None:
    """Comments and docstrings do not count; what the system runs does."""
    assert code_of(CausalSystem) != code_of(Popularity)
    one, other, third = (tmp_path / f"{name}.py" for name in ("one", "other", "third"))
    one.write_text('"""One."""\nfrom llmsrec.sequential import trainer\nx = 1\n')
    other.write_text('"""Other."""\nfrom llmsrec.sequential import trainer  # why\n\nx = 1\n')
    third.write_text('"""One."""\nx = 1\n')
    assert code_digest(one) == code_digest(other) != code_digest(third)


def test_an_outcome_is_found_as_it_was_saved(tmp_path: Path) -> None:
    outcome = Outcome({"similarity": np.arange(3) / 2}, {"key": "k"})
    outcome.save(tmp_path / "outcome")
    found = Outcome.load(tmp_path / "outcome")
    np.testing.assert_array_equal(found.values["similarity"], outcome.values["similarity"])
    assert found.facts == outcome.facts
