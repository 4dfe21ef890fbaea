"""`llmsrec compare`: train what is missing, then the tables of all that was asked for."""

from pathlib import Path
from typing import Any

from llmsrec.comparison.config import ComparisonConfig, arms_of
from llmsrec.comparison.page import save_page
from llmsrec.comparison.results import Comparison, compared
from llmsrec.comparison.run import Store, compare
from llmsrec.comparison.show import show
from llmsrec.core.config import from_mapping, load_section, read_section
from llmsrec.evaluation.per_user import EvaluationConfig

PARAMS = Path("params.yaml")


def run(dataset: str, changes: dict[str, Any], artifacts: Path, reports: Path) -> None:
    """`changes` of the section `comparison`, for this once."""
    section = read_section("comparison", PARAMS) | changes
    config = from_mapping(ComparisonConfig, section, f"{PARAMS}: comparison")
    evaluation = load_section(EvaluationConfig, "evaluation", PARAMS)
    store = Store(artifacts, Path("scratch") / dataset, PARAMS, config, evaluation)
    tell(compared(dataset, compare(store, arms_of(config)), store.asked, config), reports)
    print(f"All numbers, and a page: {reports}/comparison.html")


def tell(found: Comparison, folder: Path) -> None:
    """In files, on a page, and here."""
    found.save(folder)
    save_page(found, folder)
    show(found)
