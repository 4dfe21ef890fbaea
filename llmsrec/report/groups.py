"""Groups of evaluated users whose quality is told apart (SPEC E6, E7 and 9)."""

import numpy as np
from jaxtyping import Bool, Float, Int

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Part, Splits

SHARE = 0.35  # of the items: as many count as warm, and as cold
DECILES = 10

Mask = Bool[np.ndarray, "users"]


def all_groups(splits: Splits, part: Part) -> dict[str, dict[str, Mask]]:
    """Every way in which the report divides users; a user may be in none of a way's groups."""
    return {
        "target": by_target(splits, part),
        "transitions": by_transitions(splits, part),
        "activity": by_activity(splits, part),
        "popularity": by_decile(splits, part),
    }


def warm_and_cold(splits: Splits) -> tuple[Int[np.ndarray, "warm"], Int[np.ndarray, "cold"]]:
    """The items trained on most and least often; of equal ones, the lower index is the warmer."""
    order = _by_popularity(splits)
    cut = int(SHARE * len(order))
    return order[:cut], order[len(order) - cut :]


def by_target(splits: Splits, part: Part) -> dict[str, Mask]:
    """Which evaluated users are asked for a warm item, and which for a cold one."""
    targets = splits.candidates[part].targets
    warm, cold = warm_and_cold(splits)
    return {"warm": np.isin(targets, warm), "cold": np.isin(targets, cold)}


def by_decile(splits: Splits, part: Part) -> dict[str, Mask]:
    """By how popular the target is: 1 for the tenth of the items that was bought most."""
    order = _by_popularity(splits)
    decile = np.zeros(splits.num_items + 1, dtype=np.int64)
    decile[order] = 1 + np.arange(len(order)) * DECILES // len(order)
    found = decile[splits.candidates[part].targets]
    return {str(number): found == number for number in range(1, DECILES + 1)}


def by_activity(splits: Splits, part: Part) -> dict[str, Mask]:
    """By how many purchases are known: thirds of the users; equal numbers stay together."""
    lengths = splits.histories(part).lengths
    low, high = np.quantile(lengths, [1 / 3, 2 / 3], method="lower") if len(lengths) else (0, 0)
    return {
        f"up to {low:.0f}": lengths <= low,
        f"{low + 1:.0f} to {high:.0f}": (lengths > low) & (lengths <= high),
        f"over {high:.0f}": lengths > high,
    }


def by_transitions(splits: Splits, part: Part, *, exclude_self: bool = False) -> dict[str, Mask]:
    """The half of the users whose purchases follow one another as others' do, and the rest (ties by user id)."""
    users = splits.evaluated(part).users
    scores = transition_scores(splits.train, exclude_self=exclude_self)
    known = np.unique(users[~np.isnan(scores[users])])
    ids = np.argsort(np.argsort(np.array(splits.user_ids)[known], kind="stable"))
    order = known[np.lexsort((ids, -scores[known]))]
    half = len(order) // 2
    return {
        "transition": np.isin(users, order[:half]),
        "non-transition": np.isin(users, order[half:]),
    }


def transition_scores(
    train: Sequences, *, exclude_self: bool = False
) -> Float[np.ndarray, "users"]:
    """t_u: how often, over all users, each purchase of a user directly followed the one before, on average.

    With `exclude_self` what the user did itself is not counted. NaN where nothing follows anything."""
    rows = np.repeat(np.arange(len(train)), train.lengths)
    first = np.zeros(len(train.items), dtype=bool)
    first[train.offsets[:-1][train.lengths > 0]] = True
    after = np.flatnonzero(~first)
    pairs = np.stack([train.items[after - 1], train.items[after]], axis=1)
    _, pair, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    seen = counts[pair.ravel()].astype(np.float64)
    if exclude_self:
        own = np.stack([rows[after], pair.ravel()], axis=1)
        _, place, own_counts = np.unique(own, axis=0, return_inverse=True, return_counts=True)
        seen -= own_counts[place.ravel()]
    total = np.bincount(rows[after], weights=seen, minlength=len(train))
    steps = np.maximum(train.lengths - 1, 0)
    return np.where(steps > 0, total / np.maximum(steps, 1), np.nan)


def tied_at_the_cut(splits: Splits, part: Part) -> int:
    """How many of the users that `by_transitions` divides score just what the first of the second half does."""
    users = np.unique(splits.evaluated(part).users)
    scores = np.sort(transition_scores(splits.train)[users])[::-1]
    scores = scores[~np.isnan(scores)]
    return int((scores == scores[len(scores) // 2]).sum()) if len(scores) else 0


def _by_popularity(splits: Splits) -> Int[np.ndarray, "items"]:
    counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)[1:]
    return 1 + np.lexsort((np.arange(len(counts)), -counts))
