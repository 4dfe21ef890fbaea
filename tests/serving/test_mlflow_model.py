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
from mlflow.pyfunc import scoring_server
from starlette.testclient import TestClient
from typer.testing import CliRunner

from benchmarks.serving import served
from llmsrec.cli import app
from llmsrec.stages import pack_bundle

HISTORY = ["I003", "I004", "I005"]
pytestmark = pytest.mark.filterwarnings("ignore:Operation with range")  # MLflow on pandas 3


@pytest.fixture(scope="module")
def model(trained_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        pack_bundle.main(["--artifacts", str(trained_dataset), "--out", str(out)])
    return out


@pytest.fixture(scope="module")
def loaded(model: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code first
        yield mlflow.pyfunc.load_model(str(model))


def asked(loaded: Any, *rows: Any, **params: Any) -> list[dict[str, Any]]:
    answer = loaded.predict(pd.DataFrame({"history": list(rows)}), params=params or None)
    return answer.to_dict("records")


def typed(dataset: Path, history: list[str], k: int) -> dict[str, Any]:
    arguments = [
        "recommend",
        "--dataset",
        dataset.name,
        "--artifacts",
        str(dataset.parent),
        "--json",
    ]
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


def test_the_answers_are_those_of_the_command_line(loaded: Any, trained_dataset: Path) -> None:
    for history in (HISTORY, ["I010"], []):
        (answer,) = asked(loaded, history, k=5)
        said = typed(trained_dataset, history, 5)
        assert answer["items"] == [item["item_id"] for item in said["items"]]
        assert answer["titles"] == [item["title"] for item in said["items"]]
        assert answer["scores"] == pytest.approx([i["score"] for i in said["items"]], abs=1e-5)
        assert answer["source"] == said["source"]
        assert answer["unknown"] == []


def test_a_returning_user_gets_the_same_items_as_a_new_one(
    loaded: Any, trained_dataset: Path
) -> None:
    """The server caches the user's keys and values; the command line computes all of them."""
    for length in (1, 2, 3, 4, 5, 5):
        history = ["I003", "I004", "I005", "I006", "I007"][:length]
        (answer,) = asked(loaded, history, k=5)
        said = typed(trained_dataset, history, 5)
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


def test_timestamps_are_parsed(loaded: Any) -> None:
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


@pytest.fixture(scope="module")
def client(loaded: Any) -> TestClient:
    """MLflow's server in this process."""
    return TestClient(scoring_server.init(loaded), raise_server_exceptions=False)


def posted(client: TestClient, document: Any) -> tuple[int, Any]:
    """The status and the predictions, or the message of the error."""
    text = document if isinstance(document, str) else json.dumps(document)
    headers = {"Content-Type": "application/json"}
    response = client.post("/invocations", content=text, headers=headers)
    answer = response.json()
    return response.status_code, answer["predictions" if response.is_success else "message"]


def one(**row: Any) -> dict[str, Any]:
    return {"dataframe_records": [row]}


DAY_MS = 86_400_000
TIMES = [1_700_000_000_000 + day * DAY_MS for day in range(3)]
WHOLE = "expected milliseconds since 1970-01-01 UTC as a whole number, such as 1700000000000"


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_records": [{"history": HISTORY}]},
        {"dataframe_records": [{"history": "I003, I004,I005"}]},
        {"dataframe_records": [{"history": HISTORY, "timestamps": None}]},
        {"dataframe_records": [{"history": HISTORY}], "params": {"k": 10}},
        {"dataframe_split": {"columns": ["history"], "data": [[HISTORY]]}},
        {"inputs": [{"history": HISTORY}]},
        {"inputs": {"history": HISTORY}},
        {"inputs": {"history": [HISTORY]}},
        {"instances": [{"history": HISTORY}]},
    ],
)
def test_every_input_format_of_mlflow_gives_the_same_answer(
    loaded: Any, client: TestClient, document: Any
) -> None:
    status, (answer,) = posted(client, document)
    assert status == 200
    assert answer["items"] == asked(loaded, HISTORY)[0]["items"]


def test_an_empty_history_gets_popular_items(client: TestClient) -> None:
    for history in ([], None, "", " , "):
        assert posted(client, one(history=history))[1][0]["source"] == "popularity"
    two = {"dataframe_records": [{"history": HISTORY, "timestamps": TIMES}, {"history": ["I003"]}]}
    assert [answer["source"] for answer in posted(client, two)[1]] == ["recommender", "recommender"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"history": 5}, "row 0.history is 5; expected a list"),
        ({"history": 3.5}, "row 0.history is 3.5; expected a list"),
        ({"history": True}, "row 0.history is True; expected a list"),
        ({"history": {"I003": 1}}, "row 0.history is {'I003': 1}; expected a list"),
        ({"history": ["I003", 5]}, "row 0.history[1] is 5; expected a text"),
        ({"history": ["I003", None]}, "row 0.history[1] is None; expected a text"),
        ({"history": [["I003"]]}, "row 0.history[0] is ['I003']; expected a text"),
        ({"history": HISTORY, "timestamps": TIMES[0]}, f"row 0.timestamps is {TIMES[0]}; expected a list"),
        ({"history": HISTORY, "timestamps": "2023-11-14"}, "row 0.timestamps is '2023-11-14'; expected a list"),
        ({"history": HISTORY, "timestamps": True}, "row 0.timestamps is True; expected a list"),
        ({"history": HISTORY, "timestamps": ",".join(map(str, TIMES))}, "expected a list"),
        ({"history": HISTORY, "timestamps": TIMES[:2]}, "2 timestamps for a history of 3: give one for each"),
        ({"history": [], "timestamps": TIMES[:1]}, "1 timestamps for a history of 0"),
        ({"history": HISTORY, "timestamps": TIMES[::-1]}, "timestamps[1] is earlier than the one before"),
        ({"history": HISTORY, "exclude": ["I001"]}, "['exclude']"),
        ({"history": HISTORY, "timestamp": TIMES}, "['timestamp']"),
        ({"histories": HISTORY}, "missing inputs ['history']"),
    ],
)  # fmt: skip
def test_a_row_is_refused_with_what_was_expected(client: TestClient, row: Any, said: str) -> None:
    status, message = posted(client, one(**row))
    assert (status, said in message) == (400, True), message


@pytest.mark.parametrize(
    ("stamp", "said"),
    [
        ("2023-11-14T22:13:20Z", WHOLE), ("1700000000000", WHOLE), (None, WHOLE), (True, WHOLE), ([1], WHOLE),
        (1.7e12, WHOLE), (1_700_000_000_000.5, WHOLE), (-1, WHOLE), (0, WHOLE), (10**30, WHOLE),
        (1_700_000_000, f"it looks like seconds; {WHOLE}"),
        (1_700_000_000_000_000, f"it looks like microseconds; {WHOLE}"),
        (1_700_000_000_000_000_000, f"it looks like nanoseconds; {WHOLE}"),
    ],
)  # fmt: skip
def test_a_timestamp_in_another_unit_is_refused_and_named(
    client: TestClient, stamp: Any, said: str
) -> None:
    status, message = posted(client, one(history=["I003"], timestamps=[stamp]))
    assert (status, message.endswith(f"; {said}")) == (400, True), message
    assert "row 0.timestamps[0] is " in message


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"k": None}, "k is None; expected a whole number between 1 and the 40 items"),
        ({"k": 0}, "k is 0; it must lie between 1 and the 40 items"),
        ({"k": -3}, "k is -3; it must lie between 1 and the 40 items"),
        ({"k": 10**30}, "it must lie between 1 and the 40 items"),
        ({"k": 2.5}, "float"), ({"k": True}, "bool"), ({"k": "3"}, "str"), ({"k": [3]}, "scalar"),
        ({"exclude": ["I001"]}, "['exclude']"), ({"K": 3}, "['K']"),
        ({"new_items": "N1", "new_titles": "Thing"}, "1D array"),
        ({"new_items": ["N1"], "new_titles": [None]}, "new_titles[0] is None; expected a text"),
        ({"new_items": ["N1", "N1"], "new_titles": ["a", "b"]}, "new_items has an item twice"),
        ([3], "list"),
    ],
)  # fmt: skip
def test_a_parameter_is_refused_with_what_was_expected(
    client: TestClient, params: Any, said: str
) -> None:
    status, message = posted(client, one(history=HISTORY) | {"params": params})
    assert (status, said in message) == (400, True), message


@pytest.mark.parametrize(
    "document",
    [
        "{", "[]", '"text"', "5", "null", "", {}, {"history": HISTORY}, {"inputs": HISTORY}, {"inputs": "I003"},
        {"inputs": 5}, {"instances": HISTORY}, {"dataframe_records": HISTORY}, {"dataframe_records": []},
        {"dataframe_records": {"history": HISTORY}}, {"dataframe_split": {"data": [[HISTORY]]}},
        one(history=HISTORY) | {"inputs": [{"history": HISTORY}]},
    ],
)  # fmt: skip
def test_an_invalid_payload_is_refused(client: TestClient, document: Any) -> None:
    status, message = posted(client, document)
    assert status == 400
    assert message


@pytest.mark.slow
def test_a_server_answers_over_http_as_the_command_line(model: Path, trained_dataset: Path) -> None:
    document = {"dataframe_records": [{"history": HISTORY}, {"history": []}], "params": {"k": 4}}
    with served(model) as url:
        answers = httpx.post(f"{url}/invocations", json=document, timeout=60).json()["predictions"]
        refused = httpx.post(
            f"{url}/invocations", json=document | {"params": {"k": 99}}, timeout=60
        )
    for answer, history in zip(answers, (HISTORY, []), strict=True):
        said = typed(trained_dataset, history, 4)
        assert answer["items"] == [item["item_id"] for item in said["items"]]
        assert answer["scores"] == pytest.approx([i["score"] for i in said["items"]], abs=1e-5)
        assert answer["source"] == said["source"]
    assert refused.status_code == 400
    assert "k is 99; it must lie between 1 and the 40 items" in refused.text
