"""Trainings that go on from the champion: what they take over, when they do not, and the same bytes twice."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from llmsrec.data.catalog import Catalog
from llmsrec.data.seen import SEEN, trained_on
from llmsrec.data.splits import Splits
from llmsrec.files import read_json, sha256
from llmsrec.stages import build_backbone, train_student, train_teacher
from llmsrec.student.backbone import load_backbone
from llmsrec.student.heads import LLMSRecConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.transfer import student_of_champion
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.transfer import teacher_of_champion

SHAPE = {"embedding_size": 16, "max_length": 16, "epochs": 2, "validate_every": 1}
STUDENT = {
    "shared_size": 16, "head_size": 128, "window": 4, "stride": 2, "epochs": 3, "validation_users": 20,
}  # fmt: skip
BACKBONE = {
    "num_layers": 2, "hidden_size": 32, "num_heads": 2, "vocabulary_size": 400, "max_positions": 1024,
    "steps": 3, "batch_tokens": 512,
}  # fmt: skip


@pytest.fixture
def retrain(
    tmp_path: Path, few_splits: Splits, params: Callable[..., Path], monkeypatch: Any
) -> Callable[..., dict[str, str]]:
    """The three stages; returns the hash of each model. Their outputs may then be the next champion.

    Every look is better than those before: else it is luck whether a training moves its champion's weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "champions").mkdir()
    looks = count(1)
    for name in ("teacher", "student"):
        monkeypatch.setattr(
            f"llmsrec.{name}.train.validate",
            lambda *_: dict.fromkeys(("ndcg@10", "hr@10"), float(next(looks))),
        )

    def run(out: str, *, fresh: bool, **changes: dict[str, Any]) -> dict[str, str]:
        params(
            teacher=SHAPE | changes.get("teacher", {}),
            student=STUDENT | changes.get("student", {}),
            backbone=BACKBONE | changes.get("backbone", {}),
            retraining={"fresh": fresh, "student_epochs": 1},
        )
        few_splits.save(tmp_path / out / "splits")
        np.save(tmp_path / out / SEEN, trained_on(few_splits))
        common = ["--splits", f"{out}/splits", "--champion", "champions/tiny"]
        curve = ["--curve", f"{out}/c.json", "--scratch", f"{out}/scratch"]
        made = {}
        for stage, name, more in (
            (train_teacher, "teacher", curve),
            (build_backbone, "backbone", []),
            (train_student, "student", [*curve, "--teacher", f"{out}/teacher", "--backbone", f"{out}/backbone"]),
        ):  # fmt: skip
            stage.main(
                [*common, *more, "--out", f"{out}/{name}", "--metrics", f"{out}/{name}.json"]
            )
            inside = "model/model.safetensors" if name == "backbone" else "model.safetensors"
            made[name] = sha256(tmp_path / out / name / inside)
        return made

    return run


def went_on(folder: Path) -> list[bool]:
    return [
        read_json(folder / f"{name}.json")["went_on_from_champion"]
        for name in ("teacher", "student")
    ]


def test_a_retraining_goes_on_from_the_champion_and_ends_the_same_twice(
    tmp_path: Path, retrain: Callable[..., dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = retrain("a", fresh=True)
    assert retrain("b", fresh=False) == fresh, "there is no champion yet"
    assert "trained afresh: there is no champion in champions/tiny" in capsys.readouterr().out
    (tmp_path / "champions/tiny").symlink_to(tmp_path / "a")
    assert retrain("c", fresh=True) == fresh, "a champion is none of a fresh training's business"
    assert went_on(tmp_path / "c") == [False, False]

    warm = retrain("d", fresh=False)
    assert went_on(tmp_path / "d") == [True, True]
    assert warm["backbone"] == fresh["backbone"]
    assert warm["teacher"] != fresh["teacher"]
    assert warm["student"] != fresh["student"]
    assert len(read_json(tmp_path / "d/c.json")) == 1, "an epoch of the student instead of three"
    assert retrain("e", fresh=False) == warm


def test_what_has_another_shape_is_trained_afresh(
    tmp_path: Path, retrain: Callable[..., dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    retrain("a", fresh=True)
    (tmp_path / "champions/tiny").symlink_to(tmp_path / "a")
    other_teacher = {"teacher": {"num_blocks": 1}}
    own = retrain("b", fresh=True, **other_teacher)
    assert retrain("c", fresh=False, **other_teacher) == own
    assert went_on(tmp_path / "c") == [False, False], (
        "a student does not go on before a teacher that did not"
    )
    said = capsys.readouterr().out
    assert "trained afresh: the champion's teacher is SASRecConfig(" in said
    assert "trained afresh: its teacher did not go on from the champion's" in said
    retrain("f", fresh=False, student={"head_size": 64})
    assert went_on(tmp_path / "f") == [True, False]
    assert "trained afresh: the champion's student is LLMSRecConfig(" in capsys.readouterr().out
    other = {"backbone": {"steps": 4}}
    assert (
        retrain("d", fresh=False, **other)["backbone"]
        == retrain("e", fresh=True, **other)["backbone"]
    )
    assert "the champion's language model was built by other settings" in capsys.readouterr().out


def test_items_keep_their_vectors_and_new_ones_begin_at_the_mean(trained_store: Path) -> None:
    """By name, not by number: today's catalogue has another order and a new item."""
    teacher, own = (
        SASRec.load(trained_store / "teacher"),
        Catalog.load(trained_store / "splits/items.parquet"),
    )
    items = own.items.iloc[::-1].reset_index(drop=True)
    items.loc[0, "item_id"] = "NEW"  # and one is gone
    items["item_index"] = np.arange(1, len(items) + 1)
    today = Catalog(items)
    found = teacher_of_champion(trained_store, replace(teacher.config, num_items=len(items)), today)
    assert found is not None
    table, before = found.item_table, teacher.item_table
    assert torch.equal(table[today.indices(["NEW"])][0], before[1:].mean(dim=0))
    shared = [item for item in own.items["item_id"] if item in today]
    assert len(shared) == len(items) - 1
    assert torch.equal(table[today.indices(shared)], before[own.indices(shared)])


def test_a_student_takes_over_all_that_it_had_learned(trained_store: Path) -> None:
    """Before another teacher too, as after a retraining; not before another backbone."""
    backbone = load_backbone(trained_store / "backbone")
    catalog = Catalog.load(trained_store / "splits/items.parquet")
    student = LLMSRec.from_pretrained(trained_store / "student", backbone=backbone, catalog=catalog)
    config: LLMSRecConfig = replace(student.config, teacher="another", slot_dropout=0.0)
    learned = student_of_champion(trained_store, config, student.teacher)
    assert learned is not None
    kept = load_file(trained_store / "student/model.safetensors")
    assert learned.keys() == kept.keys() == student.heads.state_dict().keys()
    assert all(torch.equal(learned[name], kept[name]) for name in kept)
    assert (
        student_of_champion(trained_store, replace(config, backbone="another"), student.teacher)
        is None
    )
    assert student_of_champion(None, config, student.teacher) is None
