"""The negatives that a step shares, and how likely each item is to be among them."""

import numpy as np
from jaxtyping import Int

from llmsrec.student.examples import Examples


class ItemPool:
    """Items that all read-outs of a step share as negatives: each other's targets, and some of the whole catalogue."""

    def __init__(
        self, examples: Examples, num_items: int, *, batch_size: int, own: int, shared: int
    ) -> None:
        """`own` negatives are drawn for each target, `shared` ones for a step."""
        self.num_items, self.count = num_items, min(shared, num_items)
        targets = examples.targets()
        reads = len(targets) / len(examples) * batch_size  # of a step
        share = np.bincount(targets, minlength=num_items + 1) / len(targets)
        missed = (1 - share) ** reads * (1 - 1 / num_items) ** (reads * own)
        self.inclusion_probability = (1 - missed * (1 - self.count / num_items)).astype(np.float32)

    def draw(self, draws: np.random.Generator) -> Int[np.ndarray, "items"]:
        return 1 + draws.choice(self.num_items, self.count, replace=False)
