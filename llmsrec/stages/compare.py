"""Challenger and champion on today's test users -> promotion.json: promote, or why not."""

import argparse
from pathlib import Path

import torch

from llmsrec.config import load_section
from llmsrec.data.splits import Splits
from llmsrec.evaluation.promotion import PromotionConfig, compare, decide
from llmsrec.evaluation.protocol import evaluate
from llmsrec.evaluation.results import EvaluationConfig
from llmsrec.files import read_json, write_json
from llmsrec.serving import Recommender
from llmsrec.stages import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--champion", type=Path, help="the unit that serves now, if there is one")
    parser.add_argument("--gates", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(PromotionConfig, "promotion")
    evaluation = load_section(EvaluationConfig, "evaluation")
    comparison = None
    if args.champion:
        splits = Splits.load(args.artifacts / "splits")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        challenger, champion = (
            evaluate(
                Recommender.load(folder, device).before(splits.catalog), splits, "test",
                scores_mb=evaluation.scores_mb,
            )
            for folder in (args.artifacts, args.champion)
        )  # fmt: skip
        comparison = compare(challenger, champion, config.margin, evaluation)
    decision = decide(read_json(args.gates), comparison, config)
    write_json(args.out, {"promote": decision.promote, "why": decision.why, "ndcg@10": comparison})


if __name__ == "__main__":
    run(main)
