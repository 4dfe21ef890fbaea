"""A weighted sum of the scores of several rankers, and the weights that fit the validation targets best.

The weights w >= 0 maximise the mean log-likelihood of the target under a softmax over all items outside the history,
log softmax(sum_p w_p s_p)[target]: a conditional logit (McFadden 1974), concave in w. A part that adds nothing to the
others gets weight 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits
from llmsrec.ranking.ranker import Ranker
from llmsrec.training.seeding import generator

MAX_USERS = 5_000  # of the fit
MAX_SCORES = 1 << 26  # of all parts in memory: 256 MB
CHUNK = 256  # users scored at a time

Weights = dict[str, float]  # by part


class HybridRanker(Ranker):
    """The sum of weight times score over the parts; a part of weight 0 is not computed.

    If all weights are 0, so are all scores."""

    def __init__(self, parts: Mapping[str, Ranker], weights: Weights) -> None:
        self.weights = weights
        weighted = {name: weight for name, weight in weights.items() if weight} or weights
        self.parts = [(parts[name], np.float32(weight)) for name, weight in weighted.items()]

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        """One row per history, one column per item_index."""
        (first, weight), *rest = self.parts
        total = weight * first.score(histories)
        for ranker, weight in rest:
            total += weight * ranker.score(histories)
        return total


@dataclass(frozen=True)
class ScoredUsers:
    """The scores of each part for some users, with the items that may not be recommended to them."""

    names: list[str]  # of the parts
    scores: Float[np.ndarray, "parts users indices"]
    seen: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]  # (user, item) of padding and history
    targets: Int[np.ndarray, "users"]

    def only(self, names: list[str]) -> "ScoredUsers":
        """The same users with some of the parts."""
        places = [self.names.index(name) for name in names]
        return replace(self, names=names, scores=self.scores[places])


def score_users(parts: Mapping[str, Ranker], splits: Splits, part: Part, seed: int) -> ScoredUsers:
    """The scores of a sample of the evaluated users of `part`, at most MAX_USERS and MAX_SCORES."""
    total, columns = len(splits.candidates[part]), splits.num_items + 1
    count = max(1, min(MAX_USERS, MAX_SCORES // (columns * len(parts))))
    rows = np.sort(generator(seed).permutation(total)[:count])
    histories, targets = splits.histories(part).take(rows), splits.candidates[part].targets[rows]
    scores = np.empty((len(parts), len(rows), columns), dtype=np.float32)
    for place, ranker in enumerate(parts.values()):
        for start in range(0, len(rows), CHUNK):
            chunk = np.arange(start, min(start + CHUNK, len(rows)))
            scores[place, chunk] = ranker.score(histories.take(chunk))
    users = np.repeat(np.arange(len(rows)), histories.lengths)
    new = histories.items != targets[users]  # a target that was bought before may be recommended
    return ScoredUsers(
        list(parts),
        scores,
        (
            np.concatenate([np.arange(len(rows)), users[new]]),
            np.concatenate([np.zeros(len(rows), np.int64), histories.items[new]]),
        ),
        targets,
    )


def fit_weights(scored: ScoredUsers) -> Weights:
    """The weight of each part; a single part has weight 1.

    Each part is scaled to standard deviation 1 during the fit, so that one step size fits all."""
    if len(scored.names) == 1:
        return {scored.names[0]: 1.0}
    deviation = np.array([part.std(dtype=np.float64) for part in scored.scores])
    scale = 1 / np.where(deviation > 0, deviation, 1.0)
    result = minimize(
        lambda weights: _loss(scored, weights * scale, scale),
        np.ones(len(scale)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * len(scale),
    )
    return dict(zip(scored.names, (result.x * scale).tolist(), strict=True))


def log_likelihood(scored: ScoredUsers, weights: Weights) -> float:
    """The mean log-likelihood of the targets; of a random ranking, minus the logarithm of the number of items."""
    values = np.array([weights[name] for name in scored.names])
    return -_loss(scored, values, np.ones(len(values)))[0]


def _loss(
    scored: ScoredUsers, weights: Float[np.ndarray, "parts"], scale: Float[np.ndarray, "parts"]
) -> tuple[float, Float[np.ndarray, "parts"]]:
    """The mean negative log-likelihood and its gradient with respect to weights / scale."""
    scores = np.tensordot(weights.astype(np.float32), scored.scores, axes=1)
    users = np.arange(len(scores))
    scores[scored.seen] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    target = scores[users, scored.targets].astype(np.float64)
    probabilities = np.exp(scores, out=scores)
    total = probabilities.sum(axis=1, dtype=np.float64)
    probabilities /= total[:, None].astype(np.float32)
    expected = [np.einsum("ui,ui->u", probabilities, part).mean() for part in scored.scores]
    observed = scored.scores[:, users, scored.targets].mean(axis=1, dtype=np.float64)
    loss = float((np.log(total) - target).mean())
    return loss, (np.array(expected) - observed) * scale
