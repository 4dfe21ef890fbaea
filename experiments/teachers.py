"""What a store's order is worth: popularity, a Markov chain and the teacher of each preset, on the same candidates.

    python -m experiments.teachers --dataset Video_Games --presets strong paper

reads artifacts/<dataset>/splits, trains what is not yet under scratch/teachers, and shows the table, as
`llmsrec results --dataset Video_Games --reports scratch/teachers` does later. An interrupted run goes on from its last
validation.
"""

import argparse
from pathlib import Path

import torch

from llmsrec import cli
from llmsrec.config import from_mapping, load_section, read_section
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.evaluation.ranker import Ranker
from llmsrec.evaluation.results import EvaluationConfig, evaluate_all, summarise
from llmsrec.files import write_json
from llmsrec.teacher.ranker import TeacherRanker
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig, train_teacher
from llmsrec.training import Checkpoints, MetricLog, fingerprint

FOUND = Path("scratch/teachers")


def teacher_of(preset: str, splits: Splits, folder: Path) -> SASRec:
    """Trained, or as an earlier run left it."""
    file = Path("presets") / f"{preset}.yaml"
    values = read_section("teacher", Path("params.yaml")) | read_section("teacher", file)
    config = from_mapping(TeacherConfig, values, str(file))
    key = fingerprint(config, splits.sequences.items, splits.train_lengths)
    folder = folder / f"{preset}-{key[:12]}"
    if not (folder / "model").exists():
        log, checkpoints = MetricLog(folder / "curve.json"), Checkpoints(folder / "state", key)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = train_teacher(splits, config, log, checkpoints, device)
        log.save()
        model.save(folder / "model")
        checkpoints.clear()
    return SASRec.load(folder / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="whose splits lie under artifacts/")
    parser.add_argument("--presets", nargs="+", default=["strong", "paper"])
    args = parser.parse_args()
    splits = Splits.load(Path("artifacts") / args.dataset / "splits")
    folder = FOUND / args.dataset
    rankers: dict[str, Ranker] = {"popularity": Popularity(splits), "markov": MarkovChain(splits)}
    for preset in args.presets:
        rankers[f"teacher ({preset})"] = TeacherRanker(teacher_of(preset, splits, folder))
    config = load_section(EvaluationConfig, "evaluation")
    table, _ = evaluate_all(rankers, splits, config)
    metrics = summarise(table, splits, config, args.dataset)
    write_json(folder / "metrics.json", metrics)
    cli.results(args.dataset, FOUND)


if __name__ == "__main__":
    main()
