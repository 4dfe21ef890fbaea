"""A run is trained once, resumes where it was interrupted, and is evaluated on the same users as all others."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmsrec.core.errors import ConfigError
from llmsrec.core.files import write_json
from llmsrec.data.catalog import Catalog
from llmsrec.evaluation.per_user import METRICS
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.trainer import CausalTrainer, TeacherConfig, train_teacher
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.item_knn import Popularity
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog
from studies import train
from studies import training as module
from studies.cache_keys import code_digest, code_of, encoders_of
from studies.config import Run, Settings, settings_of
from studies.evaluation import RunResult
from studies.training import StudyDataset, key, selected
from studies.variants import variant_of

SASREC = Run("sasrec", "original", 0)
WRITER = Run("writer", "original", 0)
CACHE = Path("scratch/tiny/studies")


def tiny(settings: Settings | None = None) -> StudyDataset:
    return StudyDataset("tiny", settings or Settings())


def weights() -> Path:
    """The file of the one training in the cache."""
    (file,) = CACHE.glob("*/model.safetensors")
    return file


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.usefixtures("project")
def test_a_result_is_that_of_the_model_trained_by_hand() -> None:
    """The same training, the same users, the same candidates."""
    data = tiny()
    result = data.result(SASREC)
    config = replace(Settings().load(TeacherConfig, "teacher"), seed=0)
    model = train_teacher(data.splits, config, MetricLog(), Checkpoints(None, ""))
    original = evaluate(SequentialRanker(model), data.splits, "test")
    at = METRICS.index("ndcg@10")
    sampled = result.values["original_sampled"][:, at]
    np.testing.assert_array_equal(sampled, ndcg(original.sampled, 10))
    titles = replace(data.splits, candidates=data.splits.generation_candidates)
    first = hit_rate(evaluate(SequentialRanker(model), titles, "test").sampled, 1)
    assert len(data.task.rows) == 100
    np.testing.assert_array_equal(result.values["original_generation"], first[data.task.rows])
    assert result.values["similarity"].mean() < 0.999
    assert result.facts["parameters"] == sum(part.numel() for part in model.parameters())
    assert result.facts["stages"][0]["ended"] == 2


@pytest.mark.parametrize(
    ("selected_by", "expected"),
    [
        ("hr@10", {"ended": 3, "step": 2, "valid hr@10": 0.6}),
        ("ndcg@10", {"ended": 3, "step": 1, "valid ndcg@10": 0.5}),
        (None, {"ended": 3, "step": 3, "valid ndcg@10": 0.4}),
    ],
)
def test_the_reported_validation_is_the_one_whose_weights_were_selected(
    selected_by: str | None, expected: dict[str, float]
) -> None:
    validations = [
        {"step": step, "ndcg@10": ndcg, "hr@10": hit}
        for step, ndcg, hit in ((1, 0.5, 0.5), (2, 0.5, 0.6), (3, 0.4, 0.6))
    ]
    assert selected(selected_by, validations) == expected


@pytest.mark.usefixtures("project")
def test_a_run_is_trained_and_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tiny().evaluate([SASREC])
    before = files(CACHE)
    monkeypatch.setattr(module, "evaluate_ranker", None)  # a second call would fail
    monkeypatch.setattr("llmsrec.systems.training.train", None)
    again = tiny().evaluate([SASREC])
    assert files(CACHE) == before
    for name, values in first[SASREC].values.items():
        np.testing.assert_array_equal(again[SASREC].values[name], values)
    assert not list(CACHE.glob("*/state"))


def test_variants_with_equal_settings_share_a_training(change: Callable[..., None]) -> None:
    change(systems={"twin": {"system": "sasrec"}})
    results = tiny().evaluate([SASREC, Run("twin", "original", 0)])
    assert weights().exists()
    np.testing.assert_array_equal(*(r.values["original_full"] for r in results.values()))


@pytest.mark.usefixtures("project")
def test_an_interrupted_training_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    complete = tiny().result(SASREC)
    before = weights().read_bytes()
    shutil.rmtree(CACHE)
    steps, step = [], CausalTrainer.step

    def killed(self: CausalTrainer, number: int) -> dict[str, float]:
        steps.append(number)
        if len(steps) == self.steps_per_epoch + 2:
            raise KeyboardInterrupt
        return step(self, number)

    monkeypatch.setattr(CausalTrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny().result(SASREC)
    again = tiny().result(SASREC)
    assert steps[-3:] == [3, 4, 5]  # the second epoch; the first is in a checkpoint
    assert weights().read_bytes() == before
    assert again.facts == complete.facts


def test_another_evaluation_does_not_train_again(change: Callable[..., None]) -> None:
    tiny().result(SASREC)
    before = files(CACHE)
    change(protocol={"generation_users": 50})
    assert len(tiny().result(SASREC).values["original_generation"]) == 50
    after = files(CACHE)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 2


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_other_settings_are_another_training() -> None:
    """Those of the variant, and those of its base section."""
    for changes in ([], ["systems.sasrec.dropout=0.3"], ["teacher.dropout=0.4"]):
        tiny(settings_of(changes)).result(SASREC)
    assert len({file.read_bytes() for file in CACHE.glob("*/model.safetensors")}) == 3


def test_a_key_covers_all_that_a_training_reads(project: Path, change: Callable[..., None]) -> None:
    """Descriptions and the number type of the backbone too, and the weights in a folder whatever its name."""
    encoder = project / "encoder"
    encoder.mkdir()
    save_file({"weight": np.zeros(1)}, encoder / "model.safetensors")
    change(systems={"sasrec_text": {"encoder": "encoder", "max_tokens": 8, "adapter_size": 4}})
    run = Run("sasrec_text", "original", 0)

    def key_of(inputs: Any = None) -> str:
        data = tiny()
        return key(data.system(run), inputs or data.inputs(run), run.order)

    first, inputs = key_of(), tiny().inputs(run)
    assert key_of() == first
    items = inputs.splits.catalog.items.copy()
    items.loc[3, "description"] = "Of another kind."
    assert key_of(replace(inputs, splits=replace(inputs.splits, catalog=Catalog(items)))) != first
    save_file({"weight": np.ones(1)}, encoder / "model.safetensors")
    assert key_of() != first
    save_file({"weight": np.zeros(1)}, encoder / "model.safetensors")
    assert key_of() == first
    backbone = project / "artifacts/tiny/backbone"
    backbone.unlink()
    write_json(backbone / "backbone.json", {"revision": "none", "dtype": "bfloat16"})
    assert key_of() != first


def test_the_embedded_encoder_is_not_a_folder(project: Path) -> None:
    """Whatever folder of that name the command runs beside."""
    (project / "small").mkdir()
    (project / "backbone").mkdir()
    for name in ("recformer", "ctrl", "allmrec", "sasrec"):
        assert encoders_of(variant_of(name, Settings()).system) == []


@pytest.mark.usefixtures("project")
def test_the_teacher_is_trained_on_shuffled_histories_too() -> None:
    data, run = tiny(), replace(SASREC, order="shuffled")
    original, shuffled = data.inputs(SASREC), data.inputs(run)
    assert shuffled.teacher.digest != original.teacher.digest
    assert not np.array_equal(shuffled.splits.train.items, original.splits.train.items)
    result = data.result(run)
    assert not any(name.startswith("shuffled_") for name in result.values)  # specification E4
    assert tiny().inputs(run).teacher.digest == shuffled.teacher.digest
    config = Settings().load(TeacherConfig, "teacher")
    model = train_teacher(shuffled.splits, config, MetricLog(), Checkpoints(None, ""))
    assert model.digest == shuffled.teacher.digest


def test_an_answer_that_is_no_candidate_is_wrong(writer: Any) -> None:
    """Counted again from what the writer does."""
    data = tiny()
    result = data.result(WRITER)
    shown = data.splits.histories("test").take(data.task.rows)
    last = np.array([shown[row][-1] for row in range(len(shown))])
    drawn = data.splits.generation_candidates["test"].take(data.task.rows)
    right = np.where(last % 2 == 0, True, drawn.target_columns == 0) & (last % 3 != 0)
    np.testing.assert_array_equal(result.values["original_generation"], right)
    np.testing.assert_array_equal(result.values["original_valid"], last % 3 != 0)
    assert set(result.values) == {
        f"{order}_{name}" for order in ("original", "shuffled") for name in ("generation", "valid")
    }
    assert result.facts["stages"] == [{"ended": 2, "step": 2, "valid hr@1": 2.0}]


def test_saved_answers_are_not_generated_again(
    writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between two parts, the evaluation goes on with the next part."""
    monkeypatch.setattr("studies.evaluation.USERS_PER_FILE", 30)
    answers = writer.answers

    def killed(self: Any, *arguments: np.ndarray) -> np.ndarray:
        if writer.calls == 5:
            raise KeyboardInterrupt
        return answers(self, *arguments)

    monkeypatch.setattr(writer, "answers", killed)
    with pytest.raises(KeyboardInterrupt):
        tiny().result(WRITER)
    assert writer.calls == 5
    monkeypatch.setattr(writer, "answers", answers)
    tiny().result(WRITER)
    assert writer.calls == 8  # four parts, of original and of shuffled histories


@pytest.mark.usefixtures("project")
def test_unknown_names_are_refused_with_the_known_ones(change: Callable[..., None]) -> None:
    with pytest.raises(ConfigError, match=r"no systems\.deep; it has: allmrec"):
        Settings().study("small", {"systems": ["sasrec", "deep"]})
    with pytest.raises(ConfigError, match=r"no studies\.large; it has: "):
        Settings().study("large", {})
    with pytest.raises(ConfigError, match="systems is empty"):
        Settings().study("small", {"systems": []})
    with pytest.raises(ConfigError, match="seeds has a duplicate: 1, 1"):
        Settings().study("small", {"seeds": [1, 1]})
    with pytest.raises(ConfigError, match=r"'epochs=3' is no change"):
        settings_of(["epochs=3"])
    change(systems={"odd": {"system": "deep"}})
    with pytest.raises(ConfigError, match="no system 'deep'; there are: popularity"):
        variant_of("odd", Settings())


def export(project: Path, change: Callable[..., None], *seeds: int) -> dict[str, bytes]:
    """The files that the stage `trainings` leaves for these seeds."""
    change(studies={"small": SMALL | {"seeds": list(seeds)}})
    train.main(["--dataset", "tiny", "--study", "small"])
    folder = project / "artifacts/tiny/studies/small"
    return {name: content for name, (_, content) in files(folder).items()}


SMALL = {
    "summary": "", "systems": ["popularity", "sasrec"], "orders": ["original"], "reference": "sasrec",
}  # fmt: skip


@pytest.mark.slow
def test_an_export_depends_on_what_is_requested_and_not_on_earlier_requests(
    project: Path, change: Callable[..., None]
) -> None:
    """Seeds 0 and 1, then 0: the output is that of a project that was asked for 0 alone."""
    clean = export(project, change, 0)
    shutil.rmtree(project / "artifacts/tiny/studies")
    shutil.rmtree(project / "scratch")
    both = export(project, change, 0, 1)
    assert {name.split("/")[1] for name in both} == {"original-0", "original-1"}
    assert export(project, change, 0) == clean


@pytest.mark.slow
def test_an_export_is_readable_without_the_cache(
    project: Path, change: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine that pulled the outputs from DVC's remote."""
    first = export(project, change, 0)
    shutil.rmtree(project / "scratch")
    monkeypatch.setattr("llmsrec.systems.training.train", None)  # a second training would fail
    assert export(project, change, 0) == first


def test_the_code_of_a_system_is_its_import_closure(tmp_path: Path) -> None:
    """Comments and docstrings do not count; the code that the system runs does."""
    assert code_of(CausalSystem) != code_of(Popularity)
    one, other, third = (tmp_path / f"{name}.py" for name in ("one", "other", "third"))
    one.write_text('"""One."""\nfrom llmsrec.sequential import trainer\nx = 1\n')
    other.write_text('"""Other."""\nfrom llmsrec.sequential import trainer  # why\n\nx = 1\n')
    third.write_text('"""One."""\nx = 1\n')
    assert code_digest(one) == code_digest(other) != code_digest(third)


def test_a_result_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    result = RunResult({"similarity": np.arange(3) / 2}, {"key": "k"})
    result.save(tmp_path / "result")
    loaded = RunResult.load(tmp_path / "result")
    np.testing.assert_array_equal(loaded.values["similarity"], result.values["similarity"])
    assert loaded.facts == result.facts
