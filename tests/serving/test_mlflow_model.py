"""The model bundle as MLflow loads and serves it: the same answers as the command line's, also over HTTP."""

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from typer.testing import CliRunner

from benchmarks.serving import served
from llmsrec.cli import app
from llmsrec.stages import pack_bundle

HISTORY = ["I003", "I004", "I005"]
pytestmark = pytest.mark.filterwarnings("ignore:Operation with range")  # MLflow on pandas 3


@pytest.fixture(scope="module")
def model(trained_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        pack_bundle.main(["--artifacts", str(trained_store), "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def loaded(model: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code first
        yield mlflow.pyfunc.load_model(str(model))


def asked(loaded: Any, *rows: Any, **params: Any) -> list[dict[str, Any]]:
    answer = loaded.predict(pd.DataFrame({"history": list(rows)}), params=params or None)
    return answer.to_dict("records")


def typed(store: Path, history: list[str], k: int) -> dict[str, Any]:
    arguments = ["recommend", "--dataset", store.name, "--artifacts", str(store.parent), "--json"]
    arguments += ["--history", ",".join(history), "-k", str(k)]
    return json.loads(CliRunner().invoke(app, arguments).stdout)


def test_a_model_bundle_contains_no_pickle_and_no_history(model: Path) -> None:
    kinds = {path.suffix for path in model.rglob("*") if path.is_file()}
    assert kinds <= {
        ".json",
        ".safetensors",
        ".parquet",
        ".npy",
        ".py",
        ".txt",
        ".yaml",
        ".html",
        ".css",  # of reports, and the paper's numbers: the library goes along whole
        ".csv",
        "",
    }
    bundle = model / "artifacts" / "bundle"
    (hashes,) = bundle.rglob("*.npy")
    assert np.load(hashes).dtype == np.uint64, "of what it was trained on: numbers, and no pickle"
    assert [path.name for path in (bundle / "splits").iterdir()] == ["items.parquet"]


def test_the_answers_are_those_of_the_command_line(loaded: Any, trained_store: Path) -> None:
    for history in (HISTORY, ["I010"], []):
        (answer,) = asked(loaded, history, k=5)
        said = typed(trained_store, history, 5)
        assert answer["items"] == [item["item_id"] for item in said["items"]]
        assert answer["titles"] == [item["title"] for item in said["items"]]
        assert answer["scores"] == pytest.approx([i["score"] for i in said["items"]], abs=1e-5)
        assert answer["source"] == said["source"]
        assert answer["unknown"] == []


def test_a_returning_user_gets_the_same_items_as_a_new_one(
    loaded: Any, trained_store: Path
) -> None:
    """The server caches the user's keys and values; the command line computes all of them."""
    for length in (1, 2, 3, 4, 5, 5):
        history = ["I003", "I004", "I005", "I006", "I007"][:length]
        (answer,) = asked(loaded, history, k=5)
        said = typed(trained_store, history, 5)
        assert answer["items"] == [item["item_id"] for item in said["items"]]
        assert answer["scores"] == pytest.approx([i["score"] for i in said["items"]], abs=1e-5)


def test_many_rows_are_answered_as_each_alone(loaded: Any) -> None:
    rows = [HISTORY, "I003, I004 ,I005", ["I010"], None, "", ["B00X", "I010"], ["B00X"]]
    together = asked(loaded, *rows)
    for row, answer in zip(rows, together, strict=True):
        (alone,) = asked(loaded, row)
        assert answer["items"] == alone["items"]
        assert answer["scores"] == pytest.approx(alone["scores"], abs=1e-5)
    assert [answer["source"] for answer in together] == [
        "recommender", "recommender", "recommender", "popularity", "popularity", "recommender", "popularity",
    ]  # fmt: skip
    assert together[0]["items"] == together[1]["items"]
    assert together[5]["unknown"] == together[6]["unknown"] == ["B00X"]
    assert together[5]["items"] == together[2]["items"]
    assert len(together[0]["items"]) == 10


def test_moments_are_read(loaded: Any) -> None:
    days = [864_000_000_000 + day * 86_400_000 for day in range(3)]
    rows = pd.DataFrame({"history": [HISTORY, HISTORY], "timestamps": [days, None]})
    first, second = loaded.predict(rows).to_dict("records")
    assert first["scores"] != second["scores"]
    rows = pd.DataFrame({"history": [HISTORY], "timestamps": [days[:2]]})
    with pytest.raises(MlflowException, match="2 timestamps for a history of 3"):
        loaded.predict(rows)


def test_new_items_are_encoded_from_their_titles(loaded: Any) -> None:
    new = {"new_items": ["N1", "N2"], "new_titles": ["Thing number 1", "Thing number 2"]}
    (answer,) = asked(loaded, ["I003", "N1"], k=42, **new)
    assert answer["unknown"] == []
    assert "N2" in answer["items"]
    assert not {"N1", "I003"} & set(answer["items"])
    (before,) = asked(loaded, ["I003"], k=40)
    (after,) = asked(loaded, ["I003"], k=42, **new)
    score = dict(zip(after["items"], after["scores"], strict=True))
    known = [score[item] for item in before["items"]]
    np.testing.assert_allclose(known, before["scores"], atol=1e-4)
    (popular,) = asked(loaded, [], k=42, **new)
    assert set(popular["items"][-2:]) == {"N1", "N2"}
    with pytest.raises(MlflowException, match="0 new_titles for 1 new_items"):
        asked(loaded, ["I003"], new_items=["N1"])


def test_the_error_for_k_names_the_bounds(loaded: Any) -> None:
    with pytest.raises(MlflowException, match="k is 41; it must lie between 1 and the 40 items"):
        asked(loaded, HISTORY, k=41)


@pytest.mark.slow
def test_a_server_answers_over_http_as_the_command_line(model: Path, trained_store: Path) -> None:
    document = {"dataframe_records": [{"history": HISTORY}, {"history": []}], "params": {"k": 4}}
    with served(model) as url:
        answers = httpx.post(f"{url}/invocations", json=document, timeout=60).json()["predictions"]
        refused = httpx.post(
            f"{url}/invocations", json=document | {"params": {"k": 99}}, timeout=60
        )
    for answer, history in zip(answers, (HISTORY, []), strict=True):
        said = typed(trained_store, history, 4)
        assert answer["items"] == [item["item_id"] for item in said["items"]]
        assert answer["scores"] == pytest.approx([i["score"] for i in said["items"]], abs=1e-5)
        assert answer["source"] == said["source"]
    assert refused.status_code == 400
    assert "k is 99; it must lie between 1 and the 40 items" in refused.text
