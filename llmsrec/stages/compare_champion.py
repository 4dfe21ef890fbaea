"""Challenger and champion on today's test users -> promotion.json: promote, or why not."""

import argparse
from pathlib import Path

import numpy as np

from llmsrec.core.config import OPERATIONS, load_section
from llmsrec.core.errors import ArtifactError, DataError
from llmsrec.core.files import read_json, sha256, write_json
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.ranking.protocol import evaluate
from llmsrec.serving.leakage import targets_in_training
from llmsrec.serving.promotion import PromotionConfig, compare, decide
from llmsrec.serving.recommender import Recommender
from llmsrec.stages import run
from llmsrec.training.loop import device


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--champion", type=Path, help="the bundle that serves now, if there is one")
    parser.add_argument("--gates", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(PromotionConfig, "promotion", OPERATIONS)
    evaluation = load_section(EvaluationConfig, "evaluation")
    comparison, left_out = None, 0  # users whose purchase the champion was trained on
    if args.champion:
        splits = Splits.load(args.artifacts / "splits")
        rows = np.flatnonzero(~targets_in_training(args.champion, splits, "test"))
        left_out = len(splits.candidates["test"]) - len(rows)
        if not len(rows):
            raise DataError(
                "the champion was trained on what is asked of every test user: there is nothing to compare"
            )
        challenger, champion = (
            evaluate(
                Recommender.load(folder, device()).for_catalog(splits.catalog), splits, "test",
                rows=rows, scores_mb=evaluation.scores_mb,
            )
            for folder in (args.artifacts, args.champion)
        )  # fmt: skip
        comparison = compare(challenger, champion, config.margin, evaluation)
    gates = read_json(args.gates)
    student = sha256(args.artifacts / "student" / "model.safetensors")
    if gates.get("model") != student:
        raise ArtifactError(
            f"{args.gates} judges another student than {args.artifacts}: run the evaluation first"
        )
    decision = decide(gates, comparison, config)
    write_json(
        args.out,
        {
            "promote": decision.promote,
            "why": decision.why
            + (
                f"; without {left_out:,} users whose purchase it was trained on" if left_out else ""
            ),
            "ndcg@10": comparison,
            "left_out_users": left_out,
        },
    )


if __name__ == "__main__":
    run(main)
