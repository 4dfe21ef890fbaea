"""What a store's order is worth: popularity, Markov chains, and the teacher of each preset, on the same candidates.

    python -m experiments teachers --dataset Video_Games --presets strong paper

reads artifacts/<dataset>/splits, trains what is not yet under scratch/teachers, and shows the table, as
`llmsrec results --dataset Video_Games --reports scratch/teachers` does later. An interrupted run goes on from its last
validation.
"""

from pathlib import Path

from experiments.commands import parser_of
from experiments.trained import trained_teacher
from llmsrec import cli
from llmsrec.core.config import load_section, read_section
from llmsrec.core.files import write_json
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import baselines
from llmsrec.evaluation.per_user import EvaluationConfig, evaluate_all, summarise
from llmsrec.sequential.ranker import SequentialRanker

FOUND = Path("scratch/teachers")


def main(argv: list[str]) -> None:
    parser = parser_of("teachers", __doc__)
    parser.add_argument("--dataset", required=True, help="whose splits lie under artifacts/")
    parser.add_argument("--presets", nargs="+", default=["strong", "paper"])
    args = parser.parse_args(argv)
    splits = Splits.load(Path("artifacts") / args.dataset / "splits")
    folder = FOUND / args.dataset
    config = load_section(EvaluationConfig, "evaluation")
    rankers = baselines(splits, config.seed)
    for preset in args.presets:
        file = Path("presets") / f"{preset}.yaml"
        values = read_section("teacher", Path("params.yaml")) | read_section("teacher", file)
        model = trained_teacher(values, splits, folder, name=preset, where=str(file))
        rankers[f"teacher ({preset})"] = SequentialRanker(model)
    table = evaluate_all(rankers, splits, config).table
    metrics = summarise(table, splits, config, args.dataset)
    write_json(folder / "metrics.json", metrics)
    cli.results(args.dataset, FOUND)
