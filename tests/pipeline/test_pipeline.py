"""The whole chain on a tiny store: through Dagster, and by `dvc repro` alone in another copy, with equal bytes."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from tests.conftest import DAY, markov_histories

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader"),  # MLflow with SQLAlchemy
]

CHECKOUT = Path(__file__).parents[2]
DATASET = "tiny"
STAGES = [
    "interactions",
    "splits",
    "teacher",
    "backbone",
    "student",
    "item_embeddings",
    "evaluation",
]

# A knob that has another name by now is left at the project's value.
SMALL: dict[str, dict[str, Any]] = {
    "splits": {
        "user_threshold": 1, "item_threshold": 1, "negatives": 9, "generation_negatives": 4,
        "min_users": 5, "min_items": 5,
    },
    "teacher": {"embedding_size": 16, "max_length": 16, "epochs": 2, "validate_every": 1},
    "backbone": {
        "num_layers": 2, "hidden_size": 32, "num_heads": 2, "vocabulary_size": 400, "steps": 5,
        "batch_tokens": 512,
    },
    "student": {
        "window": 4, "title_tokens": 8, "shared_size": 16, "head_size": 32, "epochs": 1,
        "batch_size": 16, "stride": 2,
    },
    "evaluation": {"bootstrap": 50},
}  # fmt: skip


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


def tracked() -> list[str]:
    """What a clone would hold, and new modules that are not committed yet."""

    def listed(*options: str) -> list[str]:
        command = ["git", "ls-files", "-z", *options]
        done = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
        return [name for name in done.stdout.split("\0") if name]

    new = [name for name in listed("--others", "--exclude-standard") if name.endswith(".py")]
    return [name for name in [*listed(), *new] if (CHECKOUT / name).exists()]


def write_project(root: Path, raw: Path) -> Path:
    for name in tracked():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, root / name)
    document = yaml.safe_load((root / "params.yaml").read_text())
    document["datasets"] = {DATASET: str(raw)}
    for section, values in SMALL.items():
        document[section].update({k: v for k, v in values.items() if k in document[section]})
    (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    call(root, "git", "init", "--quiet")
    call(root, "git", "add", "--all")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    call(root, "git", *identity, "commit", "--quiet", "--message", "test")
    return root


def environment(root: Path) -> dict[str, str]:
    """With homes of its own."""
    home = root.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DAGSTER_HOME": str(home / root.name),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }


def call(root: Path, *command: str) -> str:
    """Run in the copy; returns all that was said."""
    done = subprocess.run(
        command,
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def python(root: Path, *arguments: str) -> str:
    return call(root, sys.executable, "-m", *arguments)


def outputs(root: Path) -> dict[str, str]:
    """Every output of the store's stages, and its md5 in dvc.lock."""
    locked = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    stages = [locked[f"{name}@{DATASET}"] for name in STAGES]
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


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
    roots = [write_project(tmp_path_factory.mktemp(b.__name__) / "project", raw) for b in builds]
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
    ours, theirs = outputs(by_dagster.root), outputs(by_dvc.root)
    results = [path for path in ours if path.startswith("artifacts/")]
    results += [f"reports/{DATASET}/{name}" for name in ("metrics.json", "report.html", "ndcg.png")]
    assert len(results) == 9
    assert {path: ours[path] for path in results} == {path: theirs[path] for path in results}
    assert (by_dagster.root / "data.dvc").read_text() == (by_dvc.root / "data.dvc").read_text()


def test_no_output_tells_when_or_how_fast_it_was_made(by_dagster: Built, by_dvc: Built) -> None:
    """Else its md5, which is Dagster's data version, changes when nothing did."""
    ours, theirs = outputs(by_dagster.root), outputs(by_dvc.root)
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
