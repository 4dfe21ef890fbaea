"""The model bundle: the folder that serves. The registry keeps one per version."""

import shutil
from pathlib import Path

from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import atomic_directory, read_json, write_json

CATALOG = "splits/items.parquet"
PARTS = ("teacher", "backbone", "student", "recommender")


def pack_bundle(artifacts: Path, folder: Path) -> None:
    """Copy the bundle out of `artifacts`; a local backbone is referred to by its absolute path.

    Raises ArtifactError if a part is missing."""
    for part in (CATALOG, *PARTS):
        if not (artifacts / part).exists():
            raise ArtifactError(f"{artifacts / part} is missing: run `dvc repro` to write it")
    with atomic_directory(folder) as aside:
        (aside / CATALOG).parent.mkdir()
        shutil.copyfile(artifacts / CATALOG, aside / CATALOG)
        for part in PARTS:
            shutil.copytree(artifacts / part, aside / part)
        reference = read_json(aside / "backbone" / "backbone.json")
        if reference["kind"] == "local":
            reference["location"] = str(Path(reference["location"]).resolve())
            write_json(aside / "backbone" / "backbone.json", reference)
