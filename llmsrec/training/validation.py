"""The validation that all trainings share: ranking metrics on a fixed sample of users."""

import numpy as np
from jaxtyping import Int

from llmsrec.data.splits import Splits
from llmsrec.ranking.metrics import hit_rate, ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker
from llmsrec.training.seeding import generator


def validation_metrics(
    ranker: Ranker, splits: Splits, users: int | None, seed: int, *, full: bool = False
) -> dict[str, float]:
    """NDCG@10 and HR@10 of a sample of `users` (None is all) among their stored valid candidates, or among all
    items with `full`."""
    rows = validation_rows(len(splits.candidates["valid"]), users, seed)
    evaluation = evaluate(ranker, splits, "valid", rows=rows, full=full)
    ranks = evaluation.sampled if evaluation.full is None else evaluation.full
    return {"ndcg@10": float(ndcg(ranks, 10).mean()), "hr@10": float(hit_rate(ranks, 10).mean())}


def validation_rows(total: int, count: int | None, seed: int) -> Int[np.ndarray, "rows"]:
    """`count` of the rows 0..total, sorted, the same for a seed; all of them if `count` is None."""
    if count is None or count >= total:
        return np.arange(total)
    return np.sort(generator(seed, total).choice(total, count, replace=False))
