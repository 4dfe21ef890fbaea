"""A study on a dataset: train and evaluate what is not in the cache, then write its table and its page.

    python -m studies ablation --dataset Video_Games --seeds 0 1 2 3 4

reads artifacts/<dataset>/{splits,teacher,backbone} and writes reports/studies/<study>/<dataset>.csv, .html and .png.
Trainings stay under scratch/<dataset>/studies. studies/params.yaml has the variants and what each study trains.
`--part valid` evaluates on the validation targets, for choosing settings.
"""

from typing import Any

from llmsrec.core.names import name_option
from studies.commands import add_seeds_and_changes, parser_of
from studies.config import settings_of
from studies.results import study_result
from studies.tabulate import report
from studies.training import StudyDataset


def main(name: str, argv: list[str]) -> None:
    """The command `python -m studies NAME`."""
    parser = parser_of(name, __doc__)
    parser.add_argument(
        "--dataset", type=name_option, required=True, help="a dataset under artifacts/"
    )
    parser.add_argument("--systems", nargs="+", help="variants of studies/params.yaml")
    parser.add_argument("--orders", nargs="+", help="of training histories: original, shuffled")
    parser.add_argument("--part", default="test", choices=("valid", "test"))
    add_seeds_and_changes(parser)
    parser.set_defaults(seeds=None)
    args = parser.parse_args(argv)
    options = {option: getattr(args, option) for option in ("systems", "orders", "seeds")}
    changes: dict[str, Any] = {option: value for option, value in options.items() if value}
    settings = settings_of(args.changes)
    study = settings.study(name, changes)
    data = StudyDataset(args.dataset, settings, args.part)
    results = data.evaluate(study.runs)
    about = {"study": name, "dataset": args.dataset}
    result = study_result(about, results, data.task, study, data.protocol)
    file = args.dataset if args.part == "test" else f"{args.dataset}-{args.part}"
    report(result, file)
