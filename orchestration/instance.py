"""Prepare Dagster's home from infra/dagster.yaml: history stays in .dagster, configuration under version control.

Where DAGSTER_POSTGRES_HOST is set, history is kept in that database instead (infra/storage.yaml).
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def settings(*, postgres: bool) -> str:
    """The text of dagster.yaml."""
    parts = ["dagster.yaml", *(["storage.yaml"] if postgres else [])]
    return "".join((ROOT / "infra" / part).read_text(encoding="utf-8") for part in parts)


def prepare() -> Path:
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(ROOT / ".dagster")))
    home.mkdir(parents=True, exist_ok=True)
    text = settings(postgres=bool(os.environ.get("DAGSTER_POSTGRES_HOST")))
    (home / "dagster.yaml").write_text(text, encoding="utf-8")
    return home


if __name__ == "__main__":
    prepare()
