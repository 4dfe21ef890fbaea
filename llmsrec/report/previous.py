"""The previous run, with which the report compares."""

from pathlib import Path
from typing import Any

from llmsrec.core.files import read_json, write_json


def previous_run(reports: Path, model: str) -> dict[str, Any] | None:
    """The metrics of the student before `model`, or None; call it before the new metrics are written.

    It saves them as previous.json. DVC does not delete the two files, so that a repeated run finds the same."""
    file, previous = reports / "metrics.json", reports / "previous.json"
    if file.exists() and (last := read_json(file)).get("model", model) != model:
        write_json(previous, last)
    if not previous.exists():
        write_json(previous, {})
    return read_json(previous) or None
