"""`llmsrec compare`: train what is missing, then the tables of all that was asked for."""

from pathlib import Path
from typing import Any

from llmsrec.comparison.config import ComparisonConfig, arms_of
from llmsrec.comparison.results import compared
from llmsrec.comparison.run import Store, compare
from llmsrec.comparison.show import show
from llmsrec.config import from_mapping, read_section

PARAMS = Path("params.yaml")


def run(dataset: str, changes: dict[str, Any], artifacts: Path, reports: Path) -> None:
    """`changes` of the section `comparison`, for this once."""
    section = read_section("comparison", PARAMS) | changes
    config = from_mapping(ComparisonConfig, section, f"{PARAMS}: comparison")
    store = Store(artifacts, Path("scratch") / dataset, PARAMS, config)
    outcomes = compare(store, arms_of(config))
    found = compared(dataset, outcomes, store.asked, config)
    found.save(reports)
    show(found)
    print(f"All numbers: {reports}")
