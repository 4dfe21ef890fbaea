"""The whole chain on a tiny store: through Dagster, and by `dvc repro` alone in another copy, with equal bytes."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from reliability.project import STAGES, outputs, python, write_project
from tests.conftest import DAY, markov_histories

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader"),  # MLflow with SQLAlchemy
]

DATASET = "tiny"


def write_raw(folder: Path) -> Path:
    """Forty shoppers, thirty things, and two broken lines, as Amazon would send them."""
    folder.mkdir()
    reviews = []
    for user, (name, items) in enumerate(markov_histories(40, 30, 0).items()):
        for position, item in enumerate(items):
            time = (18_000 + 7 * user + position) * DAY
            row = {"user_id": name, "parent_asin": item, "timestamp": time, "rating": 5.0}
            reviews.append(json.dumps(row))
    reviews[3:3] = ["{broken", json.dumps({"user_id": "U0001", "timestamp": DAY})]
    (folder / f"{DATASET}.jsonl").write_text("\n".join(reviews) + "\n")
    things = [
        json.dumps({"parent_asin": f"I{n:03d}", "title": f"Thing {n}", "description": ["Good."]})
        for n in range(30)
    ]
    (folder / f"meta_{DATASET}.jsonl").write_text("\n".join(things) + "\n")
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "store")


@dataclass(frozen=True)
class Built:
    """A copy with all its outputs, and what was said while they were built."""

    root: Path
    said: str


def through_dagster(root: Path) -> Built:
    return Built(root, python(root, "orchestration.run"))


def with_dvc_alone(root: Path) -> Built:
    said = python(root, "llmsrec.stages.download", "--dataset", DATASET, "--out", f"data/{DATASET}")
    said += python(root, "dvc", "add", "data")
    return Built(root, said + python(root, "dvc", "repro"))


@pytest.fixture(scope="module")
def both(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Built, Built]:
    """Side by side: most of the time goes into imports, one processor each."""
    builds = (through_dagster, with_dvc_alone)
    roots = [
        write_project(tmp_path_factory.mktemp(b.__name__) / "project", DATASET, str(raw))
        for b in builds
    ]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda build, root: build(root), builds, roots)
    return first, second


@pytest.fixture
def by_dagster(both: tuple[Built, Built]) -> Built:
    return both[0]


@pytest.fixture
def by_dvc(both: tuple[Built, Built]) -> Built:
    return both[1]


def test_the_chain_runs_through_dagster(by_dagster: Built) -> None:
    root, said = by_dagster.root, by_dagster.said
    finished = re.findall(r"✓ (\w+): (\w+),", said)
    built = [("arrivals", "unchanged"), *((name, "ran") for name in ["raw_reviews", *STAGES])]
    told = json.loads((root / "reports" / DATASET / "promotion.json").read_text())
    assert sorted(finished) == sorted([*built, ("champion", told["outcome"])])
    assert f"The champion: version 1 is {told['outcome']}: " in said
    assert f"The report: {root / 'reports' / DATASET / 'report.html'}" in said
    assert "95% bootstrap intervals" in said


def test_metrics_are_numbers_with_intervals_and_the_report_is_one_page(
    by_dagster: Built,
) -> None:
    reports = by_dagster.root / "reports" / DATASET
    metrics = json.loads((reports / "metrics.json").read_text())
    assert {"popularity", "markov", "teacher", "student"} <= set(metrics["systems"])
    for system in metrics["systems"].values():
        for ranking in ("sampled", "full"):
            for name in ("ndcg@10", "hr@10"):
                found = system[ranking][name]
                assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert metrics["users"] > 20
    page = (reports / "report.html").read_text()
    assert "<html" in page
    assert not re.search(r'(src|href)="https?://', page), "it needs no network"
    expectations = json.loads((reports / "expectations.json").read_text())
    assert expectations["success"] is True


def test_broken_lines_are_counted(by_dagster: Built) -> None:
    counted = json.loads((by_dagster.root / "reports" / DATASET / "interactions.json").read_text())
    assert counted["reviews"]["rejects"] == 2


def test_afterwards_dvc_finds_nothing_to_do(by_dagster: Built) -> None:
    root = by_dagster.root
    before = [(root / name).read_text() for name in ("data.dvc", "dvc.lock")]
    assert "Data and pipelines are up to date." in python(root, "dvc", "repro")
    assert [(root / name).read_text() for name in ("data.dvc", "dvc.lock")] == before


def test_dvc_alone_builds_the_same_models_and_numbers(by_dagster: Built, by_dvc: Built) -> None:
    ours, theirs = outputs(by_dagster.root, DATASET), outputs(by_dvc.root, DATASET)
    results = [path for path in ours if path.startswith("artifacts/")]
    results += [f"reports/{DATASET}/{name}" for name in ("metrics.json", "report.html", "ndcg.png")]
    assert len(results) == 9
    assert {path: ours[path] for path in results} == {path: theirs[path] for path in results}
    assert (by_dagster.root / "data.dvc").read_text() == (by_dvc.root / "data.dvc").read_text()


def test_no_output_tells_when_or_how_fast_it_was_made(by_dagster: Built, by_dvc: Built) -> None:
    """Else its md5, which is Dagster's data version, changes when nothing did."""
    ours, theirs = outputs(by_dagster.root, DATASET), outputs(by_dvc.root, DATASET)
    assert set(ours) == set(theirs)
    changed = sorted(path for path in ours if ours[path] != theirs[path])
    assert changed == [], ", ".join(changed)


def test_dagster_takes_what_dvc_built_as_it_is(by_dvc: Built) -> None:
    root = by_dvc.root
    before = (root / "dvc.lock").read_text()
    said = python(root, "orchestration.run")
    finished = re.findall(r"✓ (\w+): (\w+),", said)
    champion = dict(finished).pop("champion")
    assert champion in ("promoted", "refused"), "the registry has not seen this student"
    assert dict(finished) == dict.fromkeys(["raw_reviews", "arrivals", *STAGES], "unchanged") | {
        "champion": champion
    }
    assert (root / "dvc.lock").read_text() == before
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("llmsrec").experiment_id])
    ran = {run.data.tags["stage"] for run in runs}
    assert ran == {"pipeline", "champion"}, "what did not run is no MLflow run"
