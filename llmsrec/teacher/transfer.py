"""A teacher before another catalogue: what it knows keeps its vector, what it never saw gets the mean (SPEC E8)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.catalog import Catalog
from llmsrec.teacher.sasrec import SASRec, SASRecConfig
from llmsrec.unit import CATALOG, say_fresh


def shared_items(
    own: Catalog, other: Catalog
) -> tuple[Int[np.ndarray, "shared"], Int[np.ndarray, "shared"]]:
    """Indices of the items that stand in both catalogues, in each."""
    both = own.items[["item_id", "item_index"]].merge(
        other.items[["item_id", "item_index"]], on="item_id"
    )
    return both["item_index_x"].to_numpy(copy=True), both["item_index_y"].to_numpy(copy=True)


def unseen_rows(teacher: SASRec, num_items: int) -> Float[Tensor, "indices size"]:
    """The mean of the teacher's vectors for every item; row 0 is the padding's."""
    table = teacher.item_table
    rows = table[1:].mean(dim=0).expand(num_items + 1, -1).clone()
    rows[0] = 0
    return rows


def with_table(teacher: SASRec, rows: Float[Tensor, "indices size"]) -> SASRec:
    """The same teacher over other items."""
    model = SASRec(replace(teacher.config, num_items=len(rows) - 1))
    model.load_state_dict(teacher.state_dict() | {"item_embedding.weight": rows})
    return model.eval().requires_grad_(False).to(rows.device)


def transferred(teacher: SASRec, own: Catalog, other: Catalog) -> SASRec:
    """The teacher of `own` before the items of `other`."""
    rows = unseen_rows(teacher, other.num_items)
    here, there = (torch.from_numpy(part).to(rows.device) for part in shared_items(own, other))
    rows[there] = teacher.item_table[here]
    return with_table(teacher, rows)


def same_network(one: SASRecConfig, other: SASRecConfig) -> bool:
    """But for how many items it knows."""
    return replace(one, num_items=other.num_items) == other


def teacher_of_champion(
    champion: Path | None, config: SASRecConfig, catalog: Catalog
) -> SASRec | None:
    """The champion's teacher over today's items, to go on from; None where there is none of this shape."""
    if champion is None:
        return None
    teacher = SASRec.load(champion / "teacher")
    if not same_network(teacher.config, config):
        say_fresh(f"the champion's teacher is {teacher.config}, asked for is {config}")
        return None
    return transferred(teacher, Catalog.load(champion / CATALOG), catalog)
