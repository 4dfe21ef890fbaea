"""What people type, on a small dataset that the stages' own code has trained."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from typer.testing import CliRunner

from llmsrec.cli import app, main
from llmsrec.core.errors import ArtifactError, DataError
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import from_rows
from llmsrec.data.splits import Splits
from llmsrec.recommender.content import ContentRanker
from llmsrec.serving.recommender import Recommender
from llmsrec.student.model import LLMSRec
from tests.conftest import write_trained_dataset

ROOT = Path(__file__).parents[1]
ODD_TITLE = "Cable [red] [/b] :smile: " + "very long " * 20 + "end"


@pytest.fixture(scope="module")
def splits(markov_splits: Splits) -> Splits:
    """One title holds what a terminal could take for markup."""
    items = markov_splits.catalog.items.copy()
    items.loc[items["item_id"] == "I007", "title"] = ODD_TITLE
    return replace(markov_splits, catalog=Catalog(items))


@pytest.fixture(scope="module")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, splits: Splits, small_backbone: Path
) -> Path:
    artifacts = tmp_path_factory.mktemp("artifacts")
    write_trained_dataset(artifacts / "tiny", splits, splits, small_backbone)
    return artifacts


@pytest.fixture(scope="module")
def recommender(artifacts: Path) -> Recommender:
    return Recommender.load(artifacts / "tiny")


def shown(*arguments: str) -> str:
    """What a command prints, in a terminal of 400 columns."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "400"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


def rows(table: str) -> list[list[str]]:
    """The cells of a table's body."""
    lines = [line.split("│")[1:-1] for line in table.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line] for line in lines]


def refusal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line with which the program ends; a text as exit code is printed, the status is 1."""
    monkeypatch.setattr(sys, "argv", ["llmsrec", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    said = caught.value.code
    assert isinstance(said, str)
    assert "\n" not in said
    return said


HISTORY = ["I003", "I004", "I005"]


def test_recommended_is_what_has_the_highest_weighted_score(
    recommender: Recommender, artifacts: Path, splits: Splits
) -> None:
    model = LLMSRec.from_pretrained(artifacts / "tiny" / "student")
    bought = splits.catalog.indices(HISTORY)
    last_day = int(splits.sequences.timestamps.max())
    history = from_rows([bought.tolist()], [[last_day] * 3])
    with torch.no_grad():
        user = model.represent_users(history)
        student = model.represent_items(np.arange(1, splits.num_items + 1)) @ user[0]
        teacher = (model.teacher.represent(history) @ model.teacher.item_table.T)[0, 1:]
    content = ContentRanker.fit(splits.catalog, last=5).score(history)[0, 1:]
    weights = json.loads((artifacts / "tiny" / "recommender" / "config.json").read_text())[
        "weights"
    ]
    total = weights["teacher"] * teacher.numpy() + weights["student"] * student.numpy()
    total += weights["content"] * content
    scores = {
        item_id: float(score)
        for item_id, score in zip(splits.catalog.items["item_id"], total, strict=True)
        if item_id not in HISTORY
    }
    found = recommender.recommend(HISTORY, 5)
    assert [item.item_id for item in found] == sorted(scores, key=lambda key: -scores[key])[:5]
    assert [item.score for item in found] == pytest.approx(
        [scores[item.item_id] for item in found], abs=1e-4
    )
    assert [item.rank for item in found] == [1, 2, 3, 4, 5]


def test_the_order_of_purchases_matters(recommender: Recommender) -> None:
    forward = [item.score for item in recommender.recommend(HISTORY, 5)]
    assert forward != [item.score for item in recommender.recommend(HISTORY[::-1], 5)]


def test_json_agrees_with_the_recommender(artifacts: Path, recommender: Recommender) -> None:
    said = json.loads(
        shown("recommend", "--dataset", "tiny", "--history", " I003,I004 , I005,", "-k", "4",
              "--json", "--artifacts", str(artifacts))
    )  # fmt: skip
    assert said == {
        "dataset": "tiny",
        "history": HISTORY,
        "source": "recommender",
        "items": [asdict(item) for item in recommender.recommend(HISTORY, 4)],
    }


def test_the_table_agrees_with_the_recommender(artifacts: Path, recommender: Recommender) -> None:
    table = shown("recommend", "--dataset", "tiny", "--history", ",".join(HISTORY), "-k", "37",
                  "--artifacts", str(artifacts))  # fmt: skip
    assert rows(table) == [
        [str(item.rank), item.item_id, item.title, f"{item.score:.3f}"]
        for item in recommender.recommend(HISTORY, 37)
    ]
    assert ODD_TITLE in table
    assert "popular" not in table


def test_in_a_narrow_terminal_ids_stay_whole(artifacts: Path, recommender: Recommender) -> None:
    arguments = ["recommend", "--dataset", "tiny", "-k", "40", "--artifacts", str(artifacts)]
    table = CliRunner().invoke(app, arguments, env={"COLUMNS": "60"}).stdout
    assert [row[1] for row in rows(table) if row[1]] == [
        item.item_id for item in recommender.recommend([], 40)
    ]


def test_without_a_history_popular_items_are_recommended(artifacts: Path, splits: Splits) -> None:
    counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)
    likeliest = sorted(range(1, splits.num_items + 1), key=lambda item: -counts[item])[:6]
    arguments = ["recommend", "--dataset", "tiny", "-k", "6", "--artifacts", str(artifacts)]
    table = shown(*arguments)
    assert "No history: most popular items" in table
    assert [row[1] for row in rows(table)] == [splits.catalog.item_id(item) for item in likeliest]
    assert [float(row[3]) for row in rows(table)] == [counts[item] for item in likeliest]
    assert json.loads(shown(*arguments, "--json"))["source"] == "popularity"


def test_with_k_of_the_catalog_size_all_items_but_the_history_are_recommended(
    recommender: Recommender,
) -> None:
    found = recommender.recommend(HISTORY, recommender.catalog.num_items)
    known = set(recommender.catalog.items["item_id"])
    assert {item.item_id for item in found} == known - set(HISTORY)


def test_the_items_of_every_user_are_written_to_a_file(
    artifacts: Path, splits: Splits, tmp_path: Path
) -> None:
    file = tmp_path / "all.parquet"
    said = shown("recommend", "--dataset", "tiny", "--all", str(file), "-k", "3",
                 "--artifacts", str(artifacts))  # fmt: skip
    assert said == f"wrote {file}\n"
    assert len(pd.read_parquet(file)) == 3 * splits.num_users


def test_a_history_for_every_user_is_refused(artifacts: Path, tmp_path: Path) -> None:
    arguments = ["--dataset", "tiny", "--all", str(tmp_path / "all.parquet"), "--history", "I003"]
    result = CliRunner().invoke(app, ["recommend", *arguments, "--artifacts", str(artifacts)])
    assert result.exit_code == 2
    assert "leave out --history and --json" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("k", ["0", "-1", "41"])
def test_the_error_for_k_names_the_bounds(
    monkeypatch: pytest.MonkeyPatch, artifacts: Path, k: str
) -> None:
    said = refusal(monkeypatch, "recommend", "--dataset", "tiny", "-k", k,
                   "--artifacts", str(artifacts))  # fmt: skip
    assert said == f"error: k is {k}; it must lie between 1 and the 40 items"


def test_an_unknown_item_is_named(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    said = refusal(monkeypatch, "recommend", "--dataset", "tiny", "--history", "I001,B00X,I002",
                   "--artifacts", str(artifacts))  # fmt: skip
    assert said == "error: item 'B00X' is not in the catalog of 40 items"


def test_an_untrained_folder_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = refusal(monkeypatch, "recommend", "--dataset", "tiny", "--artifacts", str(tmp_path))
    assert said == (
        f"error: {tmp_path}/tiny holds no trained recommender: build it first (`make run` or `dvc repro`)"
    )


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ("splits", "splits/items.parquet"),
        ("teacher", "teacher/config.json"),
        ("backbone", "backbone/backbone.json"),
    ],
)
def test_the_error_names_a_missing_part(
    artifacts: Path, tmp_path: Path, part: str, named: str
) -> None:
    for path in (artifacts / "tiny").iterdir():
        if path.name != part:
            (tmp_path / path.name).symlink_to(path)
    with pytest.raises(ArtifactError, match=f"{named} is missing: run"):
        Recommender.load(tmp_path)


def test_item_vectors_of_another_student_are_refused(artifacts: Path, tmp_path: Path) -> None:
    for path in (artifacts / "tiny").iterdir():
        if path.name != "student":
            (tmp_path / path.name).symlink_to(path)
    model = LLMSRec.from_pretrained(artifacts / "tiny" / "student")
    with torch.no_grad():
        next(model.parameters()).add_(1)
    model.save_pretrained(tmp_path / "student")
    with pytest.raises(ArtifactError, match=r"recommender was made with another student"):
        Recommender.load(tmp_path)


def test_an_unknown_item_is_an_error_of_the_data(recommender: Recommender) -> None:
    with pytest.raises(DataError, match="'B00X' is not in the catalog"):
        recommender.recommend(["B00X"], 3)


# --- results ---


def measured(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def test_results_are_shown_with_their_intervals(tmp_path: Path) -> None:
    def system(first: float) -> dict[str, Any]:
        return {
            "sampled": {"ndcg@10": measured(first), "hr@10": measured(first + 0.1)},
            "full": {"ndcg@10": measured(first + 0.2), "hr@10": measured(first + 0.3)},
        }

    metrics = {
        "users": 12345,
        "items": 678,
        "systems": {"popularity": system(0.1), "student": system(0.5)},
        "verdict": [{"news": "bad", "text": "Something is better."}],
    }
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "metrics.json").write_text(json.dumps(metrics))
    table = shown("results", "--dataset", "tiny", "--reports", str(tmp_path))
    assert "tiny: 12,345 users, 678 items" in table
    header = [word for word in table.splitlines()[2].split("┃") if word.strip()]
    assert [name.strip() for name in header] == [
        "system", "sampled ndcg@10", "sampled hr@10", "full ndcg@10", "full hr@10",
    ]  # fmt: skip
    assert rows(table) == [
        ["popularity", "0.1000 [0.090, 0.110]", "0.2000 [0.190, 0.210]",
         "0.3000 [0.290, 0.310]", "0.4000 [0.390, 0.410]"],
        ["student", "0.5000 [0.490, 0.510]", "0.6000 [0.590, 0.610]",
         "0.7000 [0.690, 0.710]", "0.8000 [0.790, 0.810]"],
    ]  # fmt: skip
    assert table.splitlines()[-1] == "  bad: Something is better."


def test_results_that_are_not_there_say_what_to_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = refusal(monkeypatch, "results", "--dataset", "tiny", "--reports", str(tmp_path))
    assert said.startswith(f"error: {tmp_path}/tiny/metrics.json is missing: run the step")


# --- presets, downloads, help ---


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the project's params.yaml and presets, in which commands are typed."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    shutil.copytree(ROOT / "studies/presets", tmp_path / "studies/presets")
    shutil.copyfile(ROOT / "studies/params.yaml", tmp_path / "studies/params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("project")
def test_presets_are_listed_by_name() -> None:
    assert shown("preset") == "default\nesasrec\npaper\n"


def test_a_preset_is_written_and_reported(project: Path) -> None:
    said = shown("preset", "paper")
    assert "splits.kcore: iterative -> single_pass\n" in said
    document = yaml.safe_load((project / "params.yaml").read_text())
    assert document["splits"]["kcore"] == "single_pass"
    assert shown("preset", "paper") == "the parameters have the values of 'paper' already\n"


@pytest.mark.usefixtures("project")
def test_an_unknown_preset_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(monkeypatch, "preset", "best")
    assert said == "error: there is no preset 'best'; there are: default, esasrec, paper"


def test_a_download_lands_in_the_data_folder(
    project: Path, params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "shelf").mkdir()
    (project / "shelf" / "books.jsonl").write_text("{}\n")
    params(datasets={"books": "shelf"})
    assert "added data/books/books.jsonl" in shown("download", "books")
    assert (project / "data" / "books" / "books.jsonl").read_text() == "{}\n"
    assert "datasets has no 'other'; it has books" in refusal(monkeypatch, "download", "other")


HELP = """
import sys
from llmsrec.cli import main

sys.argv = ["llmsrec", *sys.argv[1:]]
try:
    main()
finally:
    slow = {"torch", "transformers", "pandas", "ibis", "boto3", "mlflow"} & set(sys.modules)
    print("slow:", sorted(slow))
"""


def test_help_shows_the_commands_without_loading_what_is_slow() -> None:
    run = subprocess.run([sys.executable, "-c", HELP, "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    for command in ("recommend", "download", "results", "preset"):
        assert command in run.stdout
    assert run.stdout.splitlines()[-1] == "slow: []"


def test_the_program_is_installed_under_its_name() -> None:
    program = Path(sys.executable).with_name("llmsrec")
    run = subprocess.run([program, "results", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert "Print the metrics of a dataset with 95% intervals" in run.stdout
