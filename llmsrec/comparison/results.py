"""All that a comparison found, as it is written: results.csv, tests.csv and comparison.json."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmsrec.comparison.config import Arm, ComparisonConfig
from llmsrec.comparison.outcomes import Chance, EvaluationTask, Outcome, evaluate_ranker
from llmsrec.comparison.paired_tests import Difference, differences
from llmsrec.comparison.published import paper_table, published_of
from llmsrec.comparison.tidy import CHANCE, Resampled, Row, columns_of, frame, rows_of
from llmsrec.core.files import atomic_write, write_json


@dataclass(frozen=True)
class Comparison:
    dataset: str
    rows: list[Row]
    tests: list[Difference]
    trained: list[dict[str, Any]]  # each training: parameters and its best look
    about: dict[str, Any]

    def save(self, folder: Path) -> None:
        for name, rows in (("results", self.rows), ("tests", self.tests)):
            kind = Row if name == "results" else Difference
            with atomic_write(folder / f"{name}.csv") as aside:
                frame(kind, rows).to_csv(aside, index=False)
        write_json(folder / "comparison.json", self.document)

    @property
    def document(self) -> dict[str, Any]:
        return self.about | {
            "trained": self.trained,
            "results": [asdict(row) for row in self.rows],
            "tests": [asdict(test) for test in self.tests],
        }


def compared(
    dataset: str, outcomes: Mapping[Arm, Outcome], asked: EvaluationTask, config: ComparisonConfig
) -> Comparison:
    """Rows in the order of the systems; chance, which nobody trains, comes last."""
    chance = Arm(CHANCE, "retrieval", "original", 0)
    lucky = Outcome(evaluate_ranker(Chance(asked.splits.num_items), asked, shuffled=False), {})
    paper, rows, tests = paper_table(), list[Row](), list[Difference]()
    for columns in columns_of({**outcomes, chance: lucky}):
        drawn = Resampled(columns, config.bootstrap, asked.evaluation.seed)
        published = {cell: published_of(paper, dataset, **cell._asdict()) for cell in columns}
        rows += rows_of(dataset, drawn, published)
        tests += differences(
            dataset, drawn, config.reference, all_pairs=config.pairs == "all", alpha=config.alpha
        )
    trained = [
        asdict(arm) | {name: outcome.facts[name] for name in ("parameters", "stages")}
        for arm, outcome in outcomes.items()
    ]
    about = {
        "dataset": dataset,
        "reference": config.reference,
        "alpha": config.alpha,
        "bootstrap": config.bootstrap,
        "users": len(asked.splits.candidates["test"]),
        "generation_users": len(asked.rows),
        "items": asked.splits.num_items,
        "candidates": asked.splits.candidates["test"].items.shape[1],
        "generation_candidates": asked.splits.generation_candidates["test"].items.shape[1],
        "seeds": list(dict.fromkeys(arm.seed for arm in outcomes)),
    }
    return Comparison(dataset, rows, tests, trained, about)
