"""Negatives that all read-outs of a step share."""

import numpy as np
from jaxtyping import Int

from llmsrec.finetuning.examples import Examples


class ItemPool:
    """The items that a step encodes: targets and negatives of all its read-outs, and some drawn from the catalog.

    `inclusion_probability` of an item_index is the probability that a step encodes the item."""

    def __init__(
        self,
        examples: Examples,
        num_items: int,
        *,
        batch_size: int,
        per_target: int,
        per_step: int,
    ) -> None:
        """`per_target` negatives are drawn for each target, `per_step` ones for a step."""
        self.num_items, self.count = num_items, min(per_step, num_items)
        targets = examples.targets()
        read_outs = len(targets) / len(examples) * batch_size  # of a step
        share = np.bincount(targets, minlength=num_items + 1) / len(targets)
        missed = (1 - share) ** read_outs * (1 - 1 / num_items) ** (read_outs * per_target)
        self.inclusion_probability = (1 - missed * (1 - self.count / num_items)).astype(np.float32)

    def draw(self, generator: np.random.Generator) -> Int[np.ndarray, "items"]:
        """Distinct items, uniform over the catalog."""
        return 1 + generator.choice(self.num_items, self.count, replace=False)
