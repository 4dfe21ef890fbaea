"""Write dagster.yaml into Dagster's home from infra/dagster.yaml, which is under version control.

Runs and events are stored in that folder, or in Postgres if DAGSTER_POSTGRES_HOST is set (infra/storage.yaml).

python -m orchestration.instance COMMAND...     # then runs a command with this home
"""

import os
import sys
import tempfile
from pathlib import Path

from llmsrec.core.config import PARAMS, read_document
from llmsrec.core.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]


def settings(*, postgres: bool) -> str:
    """The text of dagster.yaml, with the storage section if `postgres`."""
    parts = ["dagster.yaml", *(["storage.yaml"] if postgres else [])]
    return "".join((ROOT / "infra" / part).read_text(encoding="utf-8") for part in parts)


def prepare() -> Path:
    """Create Dagster's home, by default `.dagster`, with its dagster.yaml; returns the folder.

    Dagster's SQLite URLs do not quote the path: where it has a `%` or a `?`, DAGSTER_HOME becomes a link to it."""
    home = Path(os.environ.setdefault("DAGSTER_HOME", str(ROOT / ".dagster")))
    home.mkdir(parents=True, exist_ok=True)
    text = settings(postgres=bool(os.environ.get("DAGSTER_POSTGRES_HOST")))
    (home / "dagster.yaml").write_text(text, encoding="utf-8")
    if set("%?") & set(str(home)):
        link = Path(tempfile.mkdtemp(prefix="dagster-")) / "home"
        link.symlink_to(home)
        os.environ["DAGSTER_HOME"] = str(link)
    return home


def main(command: list[str]) -> None:
    try:
        read_document(ROOT / PARAMS)  # an error is shown here and not in Dagster's UI only
    except ConfigError as error:
        sys.exit(f"error: {error}")
    prepare()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
