"""The tables of a store's systems, from what each has left."""

from pathlib import Path

import pytest

from llmsrec.core.errors import LLMSRecError
from llmsrec.stages import compare_systems, train_system
from tests.comparison.conftest import project, store  # noqa: F401 (fixtures)

SYSTEM = "--system {} --artifacts artifacts/tiny --scratch scratch/tiny"
TABLES = "--dataset tiny --splits artifacts/tiny/splits --systems artifacts/tiny/systems --out out"


def test_tables_and_page_are_of_all_systems(project: Path) -> None:  # noqa: F811
    for name in ("popularity", "sasrec"):
        train_system.main(SYSTEM.format(name).split())
    compare_systems.main(TABLES.split())
    written = {path.name for path in (project / "out").iterdir()}
    assert {"results.csv", "tests.csv", "comparison.json", "comparison.html"} <= written


def test_a_system_that_left_nothing_is_named(project: Path) -> None:  # noqa: F811
    train_system.main(SYSTEM.format("popularity").split())
    with pytest.raises(LLMSRecError, match="sasrec"):
        compare_systems.main(TABLES.split())
    assert not (project / "out").exists()
