"""The stage `trainings`: every run of a study on a dataset, its weights and its per-user metrics."""

import argparse
from pathlib import Path

from llmsrec.core.names import name_option
from llmsrec.stages import run
from studies.config import Settings
from studies.training import StudyDataset


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("dataset", "study"):
        parser.add_argument(f"--{name}", type=name_option, required=True)
    args = parser.parse_args(argv)
    settings = Settings()
    study = settings.study(args.study, {})
    folder = Path("artifacts") / args.dataset / "studies" / args.study
    StudyDataset(args.dataset, settings).export(study.runs, folder)


if __name__ == "__main__":
    run(main)
