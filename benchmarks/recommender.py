"""What decision 20 chose, against what it did not choose, on the validation targets of a dataset in `artifacts/`.

NDCG@10 among all items of TF-IDF as it is and with fewer, dense dimensions; the log-likelihood of weighted sums with
more parts, and with scores standardised for each user. Teacher and recommender are used if they exist.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize

from benchmarks.figures import Figure, run_benchmark, timed
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.evaluation.baselines import MarkovChain, Popularity
from llmsrec.ranking.metrics import ndcg
from llmsrec.ranking.protocol import evaluate
from llmsrec.ranking.ranker import Ranker
from llmsrec.recommender.content import ContentRanker
from llmsrec.recommender.hybrid import ScoredUsers, fit_weights, log_likelihood, score_users
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.serving.recommender import Recommender

LAST = 5


class DenseContent(Ranker):
    """TF-IDF reduced to `size` dimensions."""

    def __init__(self, content: ContentRanker, size: int) -> None:
        svd = TruncatedSVD(size, n_iter=4, random_state=0)
        self.items, self.last = svd.fit_transform(content.items), content.last

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        tails = histories.last(self.last)
        ones = (np.ones(len(tails.items)), (tails.row_indices, tails.items))
        bought = sparse.csr_matrix(ones, (len(tails), len(self.items)))
        return normalize(bought @ self.items) @ self.items.T


class LogPopularity(Popularity):
    """The logarithm of one plus the number of training interactions."""

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return np.log1p(super().score(histories))


def parts_of(folder: Path, splits: Splits) -> dict[str, Ranker]:
    """The parts of the recommender that are trained, and two that it does not have."""
    parts: dict[str, Ranker] = {"content": ContentRanker.fit(splits.catalog, LAST)}
    if (folder / "recommender").exists():
        parts |= Recommender.load(folder).parts.by_name()
    elif (folder / "teacher").exists():
        parts["teacher"] = SequentialRanker(SASRec.load(folder / "teacher"))
    return parts | {"markov": MarkovChain(splits), "log popularity": LogPopularity(splits)}


def standardised(scored: ScoredUsers) -> ScoredUsers:
    """The scores of each user and part with mean 0 and standard deviation 1 over the items."""
    items = scored.scores[:, :, 1:]
    deviation = np.maximum(items.std(axis=2, keepdims=True), 1e-9)
    return replace(scored, scores=(scored.scores - items.mean(axis=2, keepdims=True)) / deviation)


def likelihood(name: str, scored: ScoredUsers) -> float:
    """The log-likelihood with the best weights, which are printed."""
    weights, seconds = timed(lambda: fit_weights(scored))
    value = log_likelihood(scored, weights)
    shown = ", ".join(f"{part} {weight:.3g}" for part, weight in weights.items())
    print(f"    {name:32} log-likelihood {value:8.4f}  {seconds:5.1f} s  {shown}", flush=True)
    return value


def figures(dataset: str = "sample", sizes: tuple[int, ...] = (512, 1024)) -> Iterator[Figure]:
    """`sizes` are the numbers of dense dimensions; those that exceed items or words are left out."""
    folder = Path("artifacts") / dataset
    splits = Splits.load(folder / "splits")
    parts = parts_of(folder, splits)
    content = ContentRanker.fit(splits.catalog, LAST)
    rankers = {
        f"{size} dense": DenseContent(content, size)
        for size in sizes
        if size < min(content.items.shape)
    }
    quality = {}
    for name, ranker in {"sparse": content, **rankers}.items():
        ranks = evaluate(ranker, splits, "valid").full
        assert ranks is not None
        quality[name] = float(ndcg(ranks, 10).mean())
        print(f"    TF-IDF, {name:24} NDCG@10 among all items {quality[name]:.4f}", flush=True)
    for name in rankers:
        yield Figure(f"TF-IDF: sparse over {name}", quality["sparse"] / quality[name], 1)
    scored = score_users(parts, splits, "valid", seed=0)
    own = [name for name in ("teacher", "student", "content") if name in parts]
    chosen = likelihood(" + ".join(own), scored.only(own))
    for more in ("log popularity", "markov"):
        likelihood(f"... + {more}", scored.only([*own, more]))
    if len(own) == 1:
        return
    users = likelihood("..., standardised by user", standardised(scored.only(own)))
    yield Figure("likelihood: global scale over scale by user", float(np.exp(chosen - users)), 1)


if __name__ == "__main__":
    run_benchmark(figures)
