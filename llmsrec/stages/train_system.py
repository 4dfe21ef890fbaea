"""One system of a store: each of its trainings that the section `comparison` asks for, and what it came to."""

import argparse
from pathlib import Path

from llmsrec.comparison.config import ComparisonConfig, arms_of
from llmsrec.comparison.run import Store, compare
from llmsrec.core.config import load_section
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.stages import run

PARAMS = Path("params.yaml")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--system", required=True)
    for name in ("artifacts", "scratch"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(ComparisonConfig, "comparison")
    evaluation = load_section(EvaluationConfig, "evaluation")
    store = Store(args.artifacts, args.scratch, PARAMS, config, evaluation)
    compare(store, arms_of(config, [args.system]))


if __name__ == "__main__":
    run(main)
