"""Groups of evaluated users whose quality is told apart (SPEC E7)."""

import numpy as np
from jaxtyping import Bool, Int

from llmsrec.data.splits import Part, Splits

SHARE = 0.35  # of the items: as many count as warm, and as cold


def warm_and_cold(splits: Splits) -> tuple[Int[np.ndarray, "warm"], Int[np.ndarray, "cold"]]:
    """The items trained on most and least often; of equal ones, the lower index is the warmer."""
    counts = np.bincount(splits.train.items, minlength=splits.num_items + 1)[1:]
    order = 1 + np.lexsort((np.arange(len(counts)), -counts))
    cut = int(SHARE * len(order))
    return order[:cut], order[len(order) - cut :]


def by_target(splits: Splits, part: Part) -> dict[str, Bool[np.ndarray, "users"]]:
    """Which evaluated users are asked for a warm item, and which for a cold one."""
    targets = splits.candidates[part].targets
    warm, cold = warm_and_cold(splits)
    return {"warm": np.isin(targets, warm), "cold": np.isin(targets, cold)}
