"""What a store's order is worth: popularity, a Markov chain and the teacher of each preset, on the same candidates.

    python -m benchmarks.teachers --dataset Video_Games --presets strong paper

reads artifacts/<dataset>/splits, trains what is not yet under scratch/teachers, and prints a table for docs/results.md.
An interrupted run goes on from its last validation.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

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

COLUMNS = [(ranking, name) for ranking in ("sampled", "full") for name in ("ndcg@10", "hr@10")]


def teacher_of(preset: str, splits: Splits, args: argparse.Namespace) -> SASRec:
    """Trained, or as an earlier run left it."""
    file = Path("presets") / f"{preset}.yaml"
    changed: dict[str, Any] = {"seed": args.seed}
    if args.epochs is not None:
        changed["epochs"] = args.epochs
    values = read_section("teacher", Path("params.yaml")) | read_section("teacher", file) | changed
    config = from_mapping(TeacherConfig, values, str(file))
    key = fingerprint(config, splits.sequences.items, splits.train_lengths)
    folder = Path("scratch/teachers") / args.dataset / f"{preset}-{key[:12]}"
    if not (folder / "model").exists():
        log = MetricLog(folder / "curve.json")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = train_teacher(splits, config, log, Checkpoints(folder / "state", key), device)
        log.save()
        model.save(folder / "model")
    return SASRec.load(folder / "model")


def markdown(metrics: dict[str, Any]) -> str:
    lines = [
        f"{metrics['users']:,} test users, {metrics['items']:,} items, 95% bootstrap intervals.",
        "",
    ]
    lines.append(
        "| system | " + " | ".join(f"{name}, {ranking}" for ranking, name in COLUMNS) + " |"
    )
    lines.append("| --- " * (len(COLUMNS) + 1) + "|")
    for system, found in metrics["systems"].items():
        cells = [found[ranking][name] for ranking, name in COLUMNS]
        shown = [f"{cell['value']:.4f} [{cell['low']:.4f}, {cell['high']:.4f}]" for cell in cells]
        lines.append(f"| {system} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="whose splits lie under artifacts/")
    parser.add_argument("--presets", nargs="+", default=["strong", "paper"])
    parser.add_argument("--epochs", type=int, help="at most; the table then is of a reduced run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    splits = Splits.load(Path("artifacts") / args.dataset / "splits")
    rankers: dict[str, Ranker] = {
        "popularity": Popularity(splits),
        "markov": MarkovChain(splits),
        **{
            f"teacher ({name})": TeacherRanker(teacher_of(name, splits, args))
            for name in args.presets
        },
    }
    config = load_section(EvaluationConfig, "evaluation")
    metrics = summarise(evaluate_all(rankers, splits, config), splits, config, args.dataset)
    write_json(Path("scratch/teachers") / args.dataset / "metrics.json", metrics)
    print("\n" + markdown(metrics))


if __name__ == "__main__":
    main()
