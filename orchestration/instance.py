"""Write dagster.yaml into Dagster's home from infra/dagster.yaml, which is under version control.

Runs and events are stored in that folder, or in Postgres if DAGSTER_POSTGRES_HOST is set (infra/storage.yaml).
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def settings(*, postgres: bool) -> str:
    """The text of dagster.yaml, with the storage section if `postgres`."""
    parts = ["dagster.yaml", *(["storage.yaml"] if postgres else [])]
    return "".join((ROOT / "infra" / part).read_text(encoding="utf-8") for part in parts)


def prepare() -> Path:
    """Create Dagster's home, by default `.dagster`, with its dagster.yaml; returns the folder."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(ROOT / ".dagster")))
    home.mkdir(parents=True, exist_ok=True)
    text = settings(postgres=bool(os.environ.get("DAGSTER_POSTGRES_HOST")))
    (home / "dagster.yaml").write_text(text, encoding="utf-8")
    return home


if __name__ == "__main__":
    prepare()
