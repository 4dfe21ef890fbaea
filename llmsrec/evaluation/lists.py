"""What the lists of all users together look like, beside their accuracy (specification 2): coverage, novelty, Gini."""

import numpy as np
from jaxtyping import Float, Int

Lists = Int[np.ndarray, "users k"]  # item indices; 0 where a list is shorter


def list_metrics(
    lists: Lists, counts: Int[np.ndarray, "indices"], num_users: int
) -> dict[str, float]:
    """Coverage, novelty and Gini coefficient of the lists; `counts` are the buyers of each item among `num_users`."""
    shown = np.bincount(lists[lists > 0], minlength=len(counts))[1:]
    k = lists.shape[1]
    return {
        f"coverage@{k}": coverage(shown),
        f"novelty@{k}": float(novelty(lists, counts, num_users).mean()),
        f"gini@{k}": gini(shown),
    }


def coverage(shown: Int[np.ndarray, "items"]) -> float:
    """The share of the catalog that is in at least one list (Ge et al., RecSys 2010)."""
    return float((shown > 0).mean())


def novelty(
    lists: Lists, counts: Int[np.ndarray, "indices"], num_users: int
) -> Float[np.ndarray, "users"]:
    """The mean self-information -log2(buyers / users) of each list's items (Zhou et al., PNAS 2010), in bits.

    An item that nobody bought counts as bought once. An empty list has the novelty 0."""
    bits = -np.log2(np.maximum(counts, 1) / num_users)
    filled = lists > 0
    return np.where(filled, bits[lists], 0).sum(axis=1) / np.maximum(filled.sum(axis=1), 1)


def gini(shown: Int[np.ndarray, "items"]) -> float:
    """The Gini coefficient of how often each item is in a list (Castells et al., Recommender Systems Handbook, 2015).

    0: every item equally often; 1: all places go to one item."""
    size, total = len(shown), shown.sum()
    if size < 2 or not total:
        return 0.0
    places = 2 * np.arange(1, size + 1) - size - 1
    return float((places * np.sort(shown)).sum() / ((size - 1) * total))
