"""Groups of evaluated users for which quality is reported (specification E6, E7 and 9)."""

import numpy as np
from jaxtyping import Bool, Float, Int

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits

SHARE = 0.35  # of the items are warm, and as many are cold
DECILES = 10

Mask = Bool[np.ndarray, "users"]


def all_groups(splits: Splits, part: Part) -> dict[str, dict[str, Mask]]:
    """Masks of the users in each group of each family; a user may be in no group of a family."""
    return {
        "target": by_target(splits, part),
        "transitions": by_transitions(splits, part),
        "activity": by_activity(splits, part),
        "popularity": by_decile(splits, part),
    }


def warm_and_cold(splits: Splits) -> tuple[Int[np.ndarray, "warm"], Int[np.ndarray, "cold"]]:
    """The items with the most and the fewest training interactions; ties are ordered by index."""
    order = _by_popularity(splits)
    cut = int(SHARE * len(order))
    return order[:cut], order[len(order) - cut :]


def by_target(splits: Splits, part: Part) -> dict[str, Mask]:
    """By whether the target is warm or cold."""
    targets = splits.candidates[part].targets
    warm, cold = warm_and_cold(splits)
    return {"warm": np.isin(targets, warm), "cold": np.isin(targets, cold)}


def by_decile(splits: Splits, part: Part) -> dict[str, Mask]:
    """By the decile of the target's popularity; 1 is the most popular tenth of the items."""
    order = _by_popularity(splits)
    decile = np.zeros(splits.num_items + 1, dtype=np.int64)
    decile[order] = 1 + np.arange(len(order)) * DECILES // len(order)
    deciles = decile[splits.candidates[part].targets]
    return {str(number): deciles == number for number in range(1, DECILES + 1)}


def by_activity(splits: Splits, part: Part) -> dict[str, Mask]:
    """By the length of the history: thirds of the users; equal lengths stay together."""
    lengths = splits.histories(part).lengths
    low, high = np.quantile(lengths, [1 / 3, 2 / 3], method="lower") if len(lengths) else (0, 0)
    return {
        f"up to {low:.0f}": lengths <= low,
        f"{low + 1:.0f} to {high:.0f}": (lengths > low) & (lengths <= high),
        f"over {high:.0f}": lengths > high,
    }


def by_transitions(splits: Splits, part: Part, *, exclude_self: bool = False) -> dict[str, Mask]:
    """The half of the users with the higher transition scores, and the rest (ties by user id)."""
    users = splits.evaluated(part).users
    scores = transition_scores(splits.train, exclude_self=exclude_self)
    scored = np.unique(users[~np.isnan(scores[users])])
    ids = np.argsort(np.argsort(np.array(splits.user_ids)[scored], kind="stable"))
    order = scored[np.lexsort((ids, -scores[scored]))]
    half = len(order) // 2
    return {
        "transition": np.isin(users, order[:half]),
        "non-transition": np.isin(users, order[half:]),
    }


def transition_scores(
    train: Sequences, *, exclude_self: bool = False
) -> Float[np.ndarray, "users"]:
    """t_u: the mean, over a user's transitions, of how often all users together made the same transition.

    `exclude_self` does not count the user's own transitions. NaN for users without transitions."""
    rows = np.repeat(np.arange(len(train)), train.lengths)
    first = np.zeros(len(train.items), dtype=bool)
    first[train.offsets[:-1][train.lengths > 0]] = True
    places = np.flatnonzero(~first)
    pairs = np.stack([train.items[places - 1], train.items[places]], axis=1)
    _, pair, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    frequency = counts[pair.ravel()].astype(np.float64)
    if exclude_self:
        by_user = np.stack([rows[places], pair.ravel()], axis=1)
        _, index, user_counts = np.unique(by_user, axis=0, return_inverse=True, return_counts=True)
        frequency -= user_counts[index.ravel()]
    total = np.bincount(rows[places], weights=frequency, minlength=len(train))
    steps = np.maximum(train.lengths - 1, 0)
    return np.where(steps > 0, total / np.maximum(steps, 1), np.nan)


def tied_at_median(splits: Splits, part: Part) -> int:
    """Number of users of `by_transitions` whose score equals that of the first user of the second half."""
    users = np.unique(splits.evaluated(part).users)
    scores = np.sort(transition_scores(splits.train)[users])[::-1]
    scores = scores[~np.isnan(scores)]
    return int((scores == scores[len(scores) // 2]).sum()) if len(scores) else 0


def _by_popularity(splits: Splits) -> Int[np.ndarray, "items"]:
    counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)[1:]
    return 1 + np.lexsort((np.arange(len(counts)), -counts))
