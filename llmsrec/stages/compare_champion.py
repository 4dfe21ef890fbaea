"""Compare the challenger with the champion on the present test users; write whether to promote it, and why."""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import Int

from llmsrec.core.config import OPERATIONS, load_section
from llmsrec.core.errors import ArtifactError, DataError
from llmsrec.core.files import read_json, sha256, write_json
from llmsrec.data.splits import Splits
from llmsrec.evaluation.per_user import EvaluationConfig
from llmsrec.ranking.protocol import Evaluation, evaluate
from llmsrec.serving.leakage import targets_in_training
from llmsrec.serving.promotion import PromotionConfig, compare, decide
from llmsrec.serving.recommender import Recommender
from llmsrec.stages import run
from llmsrec.training.distributed import default_device


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifacts", type=Path, required=True)
    parser.add_argument("--champion", type=Path, help="the bundle of the champion, if there is one")
    parser.add_argument("--gates", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(PromotionConfig, "promotion", OPERATIONS)
    evaluation = load_section(EvaluationConfig, "evaluation")
    gates = read_json(args.gates)
    if gates.get("model") != sha256(args.artifacts / "recommender" / "config.json"):
        raise ArtifactError(
            f"{args.gates} judges another recommender than {args.artifacts}: run the evaluation first"
        )
    comparison, left_out = None, 0
    if args.champion:
        splits = Splits.load(args.artifacts / "splits")
        rows = np.flatnonzero(~targets_in_training(args.champion, splits, "test"))
        left_out = len(splits.candidates["test"]) - len(rows)
        bundles = (args.artifacts, args.champion)
        challenger, champion = (_evaluate(each, splits, rows) for each in bundles)
        users = splits.evaluated("test").users[rows]
        comparison = compare(challenger, champion, users, config.margin, evaluation)
    decision = decide(gates, comparison, config)
    note = f"; without {left_out:,} users whose target it was trained on" if left_out else ""
    write_json(
        args.out,
        {
            "promote": decision.promote,
            "why": decision.why + note,
            "ndcg@10": comparison,
            "left_out_users": left_out,
        },
    )


def _evaluate(bundle: Path, splits: Splits, rows: Int[np.ndarray, "users"]) -> Evaluation:
    if not len(rows):
        raise DataError("the champion was trained on the targets of all test users")
    ranker = Recommender.load(bundle, default_device()).for_catalog(splits.catalog).ranker
    return evaluate(ranker, splits, "test", rows=rows)


if __name__ == "__main__":
    run(main)
