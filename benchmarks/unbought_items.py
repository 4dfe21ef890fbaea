"""Items that nobody bought in training: what the teacher's vectors of them are worth beside the item texts.

For a dataset in `artifacts/`, usually with `splits.split: global_temporal`. SASRec has seen such items as negatives
only. Their vectors are kept as trained, replaced by the mean of the others, or predicted from TF-IDF by a ridge
regression. Each table is summed with `content`, with weights that fit the validation targets.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Ridge

from benchmarks.figures import Figure, run_benchmark
from llmsrec.data.splits import Part, Splits
from llmsrec.ranking.metrics import ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker
from llmsrec.recommender.content import ContentRanker
from llmsrec.recommender.hybrid import HybridRanker, fit_weights, log_likelihood, score_users
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec

LAST = 5
PARTS: tuple[Part, ...] = ("valid", "test")


def teachers(
    folder: Path, content: ContentRanker, bought: np.ndarray, alpha: float
) -> dict[str, Ranker]:
    """The teacher with three tables of item vectors; `bought` are the items of the training interactions."""
    model = SASRec.load(folder / "teacher")
    table = model.item_table.numpy()
    others = np.setdiff1d(np.arange(1, len(table)), bought)
    ridge = Ridge(alpha=alpha, solver="sparse_cg", tol=1e-5).fit(
        content.items[bought], table[bought]
    )
    replacements = {
        "as trained": table[others],
        "mean": table[bought].mean(axis=0),
        "from texts": ridge.predict(content.items[others]),
    }
    rankers: dict[str, Ranker] = {}
    for name, rows in replacements.items():
        changed = table.copy()
        changed[others] = rows
        ranker = SequentialRanker(model)
        ranker.item_vectors = torch.from_numpy(changed)
        rankers[name] = ranker
    return rankers


def show(name: str, ranker: Ranker, splits: Splits, bought: np.ndarray, likelihood: float) -> float:
    """Print NDCG@10 among all items of all targets, of bought ones and of others; returns that of all test targets."""
    values = []
    for part in PARTS:
        ranks, targets = evaluate(ranker, splits, part).full, splits.candidates[part].targets
        assert ranks is not None
        scores, known = ndcg(ranks, 10), np.isin(targets, bought)
        values += [scores.mean(), scores[known].mean(), scores[~known].mean()]
    shown = "  ".join(f"{value:.4f}" for value in values)
    print(f"    {name:32} {likelihood:9.4f}  {shown}", flush=True)
    return float(values[3])


def figures(dataset: str = "sample", alpha: float = 1.0) -> Iterator[Figure]:
    folder = Path("artifacts") / dataset
    splits = Splits.load(folder / "splits")
    content = ContentRanker.fit(splits.catalog, LAST)
    bought = np.unique(splits.train.items)
    if len(bought) == splits.num_items:
        print(f"{dataset}: every item was bought in training")
        return
    for part in PARTS:
        targets = splits.candidates[part].targets
        share = 1 - np.isin(targets, bought).mean()
        print(f"{part}: {len(targets):,} targets, {share:.0%} of them never bought in training")
    print(
        f"    {'teacher vectors':32} {'valid LL':>9}  NDCG@10 of all, bought, other: valid, then test"
    )
    rankers = teachers(folder, content, bought, alpha)
    scored = score_users({**rankers, "content": content}, splits, "valid", seed=0)
    alone = fit_weights(scored.only(["content"]))
    best = show("content", content, splits, bought, log_likelihood(scored.only(["content"]), alone))
    for name in rankers:
        parts = scored.only([name, "content"])
        weights = fit_weights(parts)
        hybrid = HybridRanker({name: rankers[name], "content": content}, weights)
        value = show(f"{name} + content", hybrid, splits, bought, log_likelihood(parts, weights))
        yield Figure(f"test NDCG@10, {name} + content over content", value / best, 1)


if __name__ == "__main__":
    run_benchmark(figures)
