"""Commands of experiments/ at tiny scale."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import teachers
from llmsrec.data.splits import Splits
from llmsrec.files import read_json

ROOT = Path(__file__).parents[1]


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
    assert list(found) == ["popularity", "markov", "teacher (strong)", "teacher (paper)"]
    assert found["teacher (strong)"] != found["teacher (paper)"]

    monkeypatch.setattr(teachers, "train_teacher", None)  # calling it again would fail
    teachers.main()
    assert capsys.readouterr().out == first
    assert f"{found['markov']['full']['ndcg@10']['value']:.4f}" in first
