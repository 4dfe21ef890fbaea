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
from llmsrec.recommender.fitted import Parts
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec


def shared_items(
    source: Catalog, target: Catalog
) -> tuple[Int[np.ndarray, "shared"], Int[np.ndarray, "shared"]]:
    """Indices of the items that both catalogs contain, in each of them."""
    both = source.items[["item_id", "item_index"]].merge(
        target.items[["item_id", "item_index"]], on="item_id"
    )
    return both["item_index_x"].to_numpy(copy=True), both["item_index_y"].to_numpy(copy=True)


def mean_item_vectors(teacher: SASRec, num_items: int) -> Float[Tensor, "indices size"]:
    """The mean of the teacher's item vectors for every item; row 0, the padding, is 0."""
    table = teacher.item_table
    rows = table[1:].mean(dim=0).expand(num_items + 1, -1).clone()
    rows[0] = 0
    return rows


def with_item_vectors(teacher: SASRec, rows: Float[Tensor, "indices size"]) -> SASRec:
    """The same teacher with other item vectors."""
    model = SASRec(replace(teacher.config, num_items=len(rows) - 1))
    model.load_state_dict(teacher.state_dict() | {"item_embedding.weight": rows})
    return model.eval().requires_grad_(False).to(rows.device)


def teacher_for_catalog(teacher: SASRec, source: Catalog, target: Catalog) -> SASRec:
    """The teacher with item vectors for `target`; new items get the mean vector."""
    rows = mean_item_vectors(teacher, target.num_items)
    old, new = (torch.from_numpy(part).to(rows.device) for part in shared_items(source, target))
    rows[new] = teacher.item_table[old]
    return with_item_vectors(teacher, rows)


def with_teacher_and_catalog(
    student: RetrievalModel, teacher: SASRec, catalog: Catalog
) -> RetrievalModel:
    """The student's heads with another teacher and the titles of another catalog."""
    model = RetrievalModel(student.config, student.variant, student.backbone, teacher, catalog)
    model.heads.load_state_dict(student.heads.state_dict())
    return model.eval()


def ranker_for_catalog(
    ranker: RetrievalRanker, source: Catalog, target: Catalog
) -> RetrievalRanker:
    """A ranker of the items of `target`; items with the same id and title as in `source` are not encoded again."""
    student = ranker.model
    model = with_teacher_and_catalog(
        student, teacher_for_catalog(student.teacher, source, target), target
    )
    vectors = np.zeros((target.num_items + 1, student.config.shared_size), dtype=np.float32)
    old, new = shared_items(source, target)
    same = np.array(
        [source.titles[a] == target.titles[b] for a, b in zip(old, new, strict=True)], dtype=bool
    )
    vectors[new[same]] = ranker.item_vectors.cpu().numpy()[old[same]]
    rest = np.setdiff1d(np.arange(1, target.num_items + 1), new[same])
    vectors[rest] = encode(model, rest)
    return RetrievalRanker(model, vectors)


def parts_for_catalog(parts: Parts, source: Catalog, target: Catalog) -> Parts:
    """The parts of a recommender for the items of `target`."""
    student = ranker_for_catalog(parts.student, source, target)
    return Parts(
        SequentialRanker(student.model.teacher), student, parts.content.for_catalog(target)
    )
