"""A copy of this checkout with tiny settings, where every stage runs in seconds."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).parents[1]
STAGES = [
    "interactions",
    "splits",
    "teacher",
    "backbone",
    "student",
    "recommender",
    "item_embeddings",
    "recommendations",
    "evaluation",
]

# Names that a section does not have are ignored.
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


class CommandFailed(Exception):
    """A command in the copy failed; the message holds its output."""


def write_project(
    root: Path, dataset: str, source: str, changes: Mapping[str, Mapping[str, Any]] | None = None
) -> Path:
    """Copy the checkout with one dataset; `changes` override the small settings, by section of either file."""
    for name in tracked():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, root / name)
    for name in ("params.yaml", "operations.yaml"):
        document = yaml.safe_load((root / name).read_text())
        if name == "params.yaml":
            document["datasets"] = {dataset: source}
        for section in document.keys() & SMALL.keys():
            small = SMALL[section].items()
            document[section].update({k: v for k, v in small if k in document[section]})
        for section in document.keys() & (changes or {}).keys():
            document[section].update((changes or {})[section])
        (root / name).write_text(yaml.safe_dump(document, sort_keys=False))
    call(root, "git", "init", "--quiet")
    call(root, "git", "add", "--all")
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    call(root, "git", *identity, "commit", "--quiet", "--message", "test")
    return root


def tracked() -> list[str]:
    """The files that git tracks, and new modules that are not committed yet."""

    def list_files(*options: str) -> list[str]:
        command = ["git", "ls-files", "-z", *options]
        done = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True)
        return [name for name in done.stdout.split("\0") if name]

    new = [name for name in list_files("--others", "--exclude-standard") if name.endswith(".py")]
    return [name for name in [*list_files(), *new] if (CHECKOUT / name).exists()]


def environment(root: Path) -> dict[str, str]:
    """Environment variables with separate homes of Dagster and DVC, without those of MLflow."""
    home = root.parent / "home"
    home.mkdir(exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return {
        **inherited,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DAGSTER_HOME": str(home / root.name),
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": "1",
    }


def call(root: Path, *command: str) -> str:
    """Run a command in the copy and return its output; raises CommandFailed."""
    done = subprocess.run(
        command,
        cwd=root,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)} in {root}:\n{done.stdout}")
    return done.stdout


def python(root: Path, *arguments: str) -> str:
    """Run `python -m` in the copy and return its output; raises CommandFailed."""
    return call(root, sys.executable, "-m", *arguments)


def outputs(root: Path, dataset: str) -> dict[str, str]:
    """The md5 in dvc.lock of every output of the dataset's stages, by path."""
    locked = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    stages = [locked[f"{name}@{dataset}"] for name in STAGES]
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}
