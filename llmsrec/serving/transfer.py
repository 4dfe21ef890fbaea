"""A trained teacher and student applied to another catalog (specification, E8).

Items that both catalogs hold keep their vectors. Other items get the mean vector of the teacher, and their student
vector is computed from their text."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.catalog import Catalog
from llmsrec.llm.ranker import RetrievalRanker, encode
from llmsrec.llm.retrieval import RetrievalModel
from llmsrec.sequential.sasrec import SASRec


def shared_items(
    own: Catalog, other: Catalog
) -> tuple[Int[np.ndarray, "shared"], Int[np.ndarray, "shared"]]:
    """Indices of the items that stand in both catalogues, in each."""
    both = own.items[["item_id", "item_index"]].merge(
        other.items[["item_id", "item_index"]], on="item_id"
    )
    return both["item_index_x"].to_numpy(copy=True), both["item_index_y"].to_numpy(copy=True)


def mean_item_vectors(teacher: SASRec, num_items: int) -> Float[Tensor, "indices size"]:
    """The mean of the teacher's vectors for every item; row 0 is the padding's."""
    table = teacher.item_table
    rows = table[1:].mean(dim=0).expand(num_items + 1, -1).clone()
    rows[0] = 0
    return rows


def with_item_vectors(teacher: SASRec, rows: Float[Tensor, "indices size"]) -> SASRec:
    """The same teacher over other items."""
    model = SASRec(replace(teacher.config, num_items=len(rows) - 1))
    model.load_state_dict(teacher.state_dict() | {"item_embedding.weight": rows})
    return model.eval().requires_grad_(False).to(rows.device)


def teacher_for_catalog(teacher: SASRec, own: Catalog, other: Catalog) -> SASRec:
    """The teacher of `own` before the items of `other`."""
    rows = mean_item_vectors(teacher, other.num_items)
    here, there = (torch.from_numpy(part).to(rows.device) for part in shared_items(own, other))
    rows[there] = teacher.item_table[here]
    return with_item_vectors(teacher, rows)


def with_teacher_and_catalog(
    student: RetrievalModel, teacher: SASRec, catalog: Catalog
) -> RetrievalModel:
    """The same heads around another teacher's table and another catalogue's titles."""
    model = RetrievalModel(student.config, student.variant, student.backbone, teacher, catalog)
    model.heads.load_state_dict(student.heads.state_dict())
    return model.eval()


def ranker_for_catalog(ranker: RetrievalRanker, own: Catalog, other: Catalog) -> RetrievalRanker:
    """Ranks the items of `other`; an item with the same id and title as in `own` is not encoded again."""
    student = ranker.model
    model = with_teacher_and_catalog(
        student, teacher_for_catalog(student.teacher, own, other), other
    )
    vectors = np.zeros((other.num_items + 1, student.config.shared_size), dtype=np.float32)
    here, there = shared_items(own, other)
    alike = np.array(
        [own.titles[a] == other.titles[b] for a, b in zip(here, there, strict=True)], dtype=bool
    )
    vectors[there[alike]] = ranker.item_vectors.cpu().numpy()[here[alike]]
    new = np.setdiff1d(np.arange(1, other.num_items + 1), there[alike])
    vectors[new] = encode(model, new)
    return RetrievalRanker(model, vectors)
