"""Prepare Dagster's home from infra/dagster.yaml: history stays in .dagster, configuration under version control."""

import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def prepare() -> Path:
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(ROOT / ".dagster")))
    home.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "infra" / "dagster.yaml", home / "dagster.yaml")
    return home


if __name__ == "__main__":
    prepare()
