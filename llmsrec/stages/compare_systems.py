"""Every system of a store side by side: tables, tests and a page."""

import argparse
from pathlib import Path

from llmsrec.comparison.command import tell
from llmsrec.comparison.config import ComparisonConfig, arms_of
from llmsrec.comparison.outcomes import EvaluationTask
from llmsrec.comparison.results import compared
from llmsrec.comparison.tidy import load_outcomes
from llmsrec.core.config import load_section
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.stages import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True)
    for name in ("splits", "systems", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(ComparisonConfig, "comparison")
    evaluation = load_section(EvaluationConfig, "evaluation")
    asked = EvaluationTask(Splits.load(args.splits), evaluation, config.generation_users)
    outcomes = load_outcomes(args.systems, arms_of(config), asked.digest)
    tell(compared(args.dataset, outcomes, asked, config), args.out)


if __name__ == "__main__":
    run(main)
