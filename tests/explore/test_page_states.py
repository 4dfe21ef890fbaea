"""What the page shows where datasets are missing or damaged, without a browser."""

import sys
from pathlib import Path
from typing import Any

import pytest

from llmsrec.explore import PAGE

testing = pytest.importorskip("streamlit.testing.v1", reason="Streamlit is not installed")


def shown(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "argv", [str(PAGE), str(artifacts)])
    app = testing.AppTest.from_file(str(PAGE), default_timeout=600).run()
    assert not app.exception
    return app


def test_without_a_trained_dataset_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (error,) = shown(tmp_path, monkeypatch).error
    assert error.value == f"{tmp_path} holds no trained dataset: run `make run` first."


def test_a_damaged_dataset_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shop" / "recommender" / "config.json"
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    (error,) = shown(tmp_path, monkeypatch).error
    assert "items.parquet" in error.value
    assert "dvc repro" in error.value


def test_it_starts_with_the_first_shopper(
    trained_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = shown(trained_dataset.parent, monkeypatch)
    assert not app.error
    assert [each.value for each in app.subheader] == ["History", "What the order changes"]
    (clear,) = (button for button in app.button if button.label == "Clear")
    clear.click().run()
    assert any("Nothing was bought yet" in caption.value for caption in app.caption)
