"""The stage `study`: the table and the page of a study, from the results that the stage `trainings` left."""

import argparse
from pathlib import Path

from llmsrec.core.names import name_option
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.stages import run
from studies.commands import REPORTS, save
from studies.config import Protocol, Settings
from studies.evaluation import EvaluationTask, load_results
from studies.page import save_page, verdict
from studies.results import study_result
from studies.table import StudyResult
from studies.tables import print_tables


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("dataset", "study"):
        parser.add_argument(f"--{name}", type=name_option, required=True)
    args = parser.parse_args(argv)
    settings, artifacts = Settings(), Path("artifacts") / args.dataset
    study, protocol = settings.study(args.study, {}), settings.load(Protocol, "protocol")
    evaluation = settings.load(EvaluationConfig, "evaluation")
    splits = Splits.load(artifacts / "splits")
    task = EvaluationTask(splits, evaluation, protocol.generation_users)
    results = load_results(artifacts / "studies" / args.study, study.runs, task.digest)
    about = {"study": args.study, "dataset": args.dataset}
    report(study_result(about, results, task, study, protocol), args.dataset)


def report(result: StudyResult, file: str) -> None:
    """Write the table and the page, and print the tables and the verdict."""
    folder = REPORTS / result.about["study"]
    save_page(result, folder, file)
    print_tables(result)
    print("\n".join(statement["text"] for statement in verdict(result)))
    save(result.table, result.about["study"], file)
    print(f"The page: {folder / file}.html")


if __name__ == "__main__":
    run(main)
