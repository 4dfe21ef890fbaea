"""A throw-away git and DVC project: two datasets, three stages, tiny programs that fail or wait when asked."""

import base64
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

Materialise = Callable[..., Any]  # the fixture of that name

# What libraries do among themselves: DVC with pygtrie, MLflow with SQLAlchemy.
QUIET = [
    pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader"),
]

PARAMS: dict[str, Any] = {
    "datasets": {"north": "made up", "south": "made up"},
    "words": {"least": 1, "strict": True},
    "counts": {"add": 0},
}

DVC_YAML = """
vars: [params.yaml]
stages:
  words:
    desc: The words of the raw text
    meta: {dagster: {group: texts, kinds: [python], pool: cpu, checks: "reports/${item.dataset}/check.json"}}
    matrix: {dataset: "${datasets}"}
    cmd: python steps/words.py data/${item.dataset} out/${item.dataset}/words reports/${item.dataset}/check.json
    params: [words]
    deps: [steps/words.py, "data/${item.dataset}"]
    outs: ["out/${item.dataset}/words"]
    metrics: ["reports/${item.dataset}/check.json": {cache: false}]
  counts:
    desc: How many words, and the longest
    meta:
      dagster:
        links: {page: "reports/${item.dataset}/page.html"}
        picture: "reports/${item.dataset}/dot.png"
        headline: {words: words, longest: length.max@1, absent: nothing}
    matrix: {dataset: "${datasets}"}
    cmd: python steps/counts.py out/${item.dataset}/words out/${item.dataset}/longest.txt reports/${item.dataset}
    params: [counts]
    deps: [steps/counts.py, steps/shared, "out/${item.dataset}/words"]
    outs: ["out/${item.dataset}/longest.txt", "reports/${item.dataset}/page.html", "reports/${item.dataset}/dot.png"]
    metrics: ["reports/${item.dataset}/counts.json": {cache: false}]
    plots: ["reports/${item.dataset}/lengths.json": {cache: false}]
  summary:
    desc: Both datasets side by side
    cmd: python steps/summary.py out/north/longest.txt out/south/longest.txt out/summary.txt
    deps: [steps/summary.py, out/north/longest.txt, out/south/longest.txt]
    outs: [out/summary.txt]
"""

# A file `hold` makes it wait half-way, with its process id in `held-<dataset>`, until that file is gone.
WORDS = """
import json, os, sys, time, yaml
from pathlib import Path
raw, out, check = map(Path, sys.argv[1:])
knobs = yaml.safe_load(Path("params.yaml").read_text())["words"]
words = (raw / "text.txt").read_text().split()
print(f"{len(words)} words in {raw}, asked by {os.environ.get('ASKED_BY', 'nobody')}")
enough = len(words) >= knobs["least"]
row = {"name": "enough_words", "success": enough, "observed": len(words), "examples": words[:1]}
check.parent.mkdir(parents=True, exist_ok=True)
check.write_text(json.dumps({"success": enough, "results": [row]}))
if knobs["strict"] and not enough:
    sys.exit(f"error: {len(words)} words, expected {knobs['least']}: lower words.least")
out.mkdir(parents=True)
(out / "first.txt").write_text(words[0])
if Path("hold").exists():
    Path(f"new-{raw.name}").write_text(str(os.getpid()))
    os.replace(f"new-{raw.name}", f"held-{raw.name}")
while Path("hold").exists():
    time.sleep(0.05)
(out / "rest.txt").write_text(" ".join(words[1:]))
"""

COUNTS = """
import base64, json, sys, yaml
from pathlib import Path
from shared.text import longest
words, out, reports = map(Path, sys.argv[1:])
add = yaml.safe_load(Path("params.yaml").read_text())["counts"]["add"]
texts = (words / "first.txt").read_text().split() + (words / "rest.txt").read_text().split()
out.write_text(longest(texts))
counts = {"words": len(texts) + add, "length": {"max@1": len(longest(texts))}, "sound": True}
counts["verdict"] = [{"news": "bad", "text": "Few words."}, {"news": "good", "text": "Short words."}]
(reports / "counts.json").write_text(json.dumps(counts))
(reports / "lengths.json").write_text(json.dumps([{"length": len(text)} for text in texts]))
(reports / "page.html").write_text(f"<p>{len(texts)}</p>")
(reports / "dot.png").write_bytes(base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="))
"""

SUMMARY = """
import sys
from pathlib import Path
*parts, out = map(Path, sys.argv[1:])
out.write_text(" ".join(part.read_text() for part in parts))
"""

FILES = {
    "dvc.yaml": DVC_YAML,
    ".gitignore": "/data/\n/mlflow.db\n/mlartifacts/\n",
    ".dvcignore": "__pycache__\n",
    ".dvc/config": "[core]\n    analytics = false\n    check_update = false\n",
    ".dvc/.gitignore": "/tmp\n/cache\n",
    "steps/words.py": WORDS,
    "steps/counts.py": COUNTS,
    "steps/summary.py": SUMMARY,
    "steps/shared/text.py": "def longest(texts):\n    return max(texts, key=len)\n",
    "data/north/text.txt": "snow lies on the high fells",
    "data/south/text.txt": "sun over orange groves",
}


def write_project(root: Path) -> Path:
    """Nothing is tracked by DVC and nothing built yet."""
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS, sort_keys=False))
    git(root, "init", "--quiet")
    commit(root)
    return root


def copy_project(source: Path, target: Path) -> Path:
    """Cache, outputs and history come along; DVC's locks do not."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("tmp"))
    return target


def commit(root: Path) -> None:
    git(root, "add", "--all")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    git(root, *identity, "commit", "--quiet", "--message", "test")


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def dvc(root: Path, *arguments: str) -> str:
    """What a person at the command line would do; returns all it said."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def environment(**more: str) -> dict[str, str]:
    """`python` is the interpreter of the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, **more}


def change_params(root: Path, **sections: Mapping[str, Any]) -> None:
    document = yaml.safe_load((root / "params.yaml").read_text())
    for name, values in sections.items():
        document[name] = {**document.get(name, {}), **values}
    (root / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))


def lock_md5s(root: Path) -> dict[str, list[str]]:
    """By stage, the hashes of its outputs as dvc.lock holds them."""
    document = yaml.safe_load((root / "dvc.lock").read_text())
    return {
        name: [out["md5"] for out in stage["outs"]] for name, stage in document["stages"].items()
    }


def contents(root: Path, folders: Iterable[str] = ("out", "reports")) -> dict[str, str]:
    """Every output file and its bytes."""
    return {
        path.relative_to(root).as_posix(): base64.b64encode(path.read_bytes()).decode()
        for folder in folders
        for path in sorted((root / folder).rglob("*"))
        if path.is_file() and path.name != ".gitignore"
    }


def runs_of(root: Path, dagster_run: str | None = None) -> list[Any]:
    """MLflow's runs of one Dagster run, or of all that there were, parents among them."""
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("test")
    query = f"tags.dagster_run = '{dagster_run}'" if dagster_run else ""
    return list(client.search_runs([experiment.experiment_id], query)) if experiment else []
