"""The run before this one: what the report compares with."""

from pathlib import Path
from typing import Any

from llmsrec.core.files import read_json, write_json


def previous_run(reports: Path, model: str) -> dict[str, Any] | None:
    """The metrics of the student before `model`, kept beside its own from here on; ask before those are written.

    DVC lets both files stand when the stage runs again; a run that was killed and is repeated finds the same."""
    file, kept = reports / "metrics.json", reports / "previous.json"
    if file.exists() and (last := read_json(file)).get("model", model) != model:
        write_json(kept, last)
    if not kept.exists():
        write_json(kept, {})
    return read_json(kept) or None
