"""A student before another catalogue: items that it has encoded keep their vector, others are read from their text."""

import numpy as np

from llmsrec.data.catalog import Catalog
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import StudentRanker, encode
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.transfer import shared_items, transferred


def beside(student: LLMSRec, teacher: SASRec, catalog: Catalog) -> LLMSRec:
    """The same heads around another teacher's table and another catalogue's titles."""
    model = LLMSRec(student.config, student.backbone, teacher, catalog)
    model.heads.load_state_dict(student.heads.state_dict())
    return model.eval()


def transferred_ranker(ranker: StudentRanker, own: Catalog, other: Catalog) -> StudentRanker:
    """Ranks the items of `other`; an item with the same id and title as in `own` is not encoded again."""
    student = ranker.model
    model = beside(student, transferred(student.teacher, own, other), other)
    vectors = np.zeros((other.num_items + 1, student.config.shared_size), dtype=np.float32)
    here, there = shared_items(own, other)
    alike = np.array(
        [own.titles[a] == other.titles[b] for a, b in zip(here, there, strict=True)], dtype=bool
    )
    vectors[there[alike]] = ranker.item_vectors.cpu().numpy()[here[alike]]
    new = np.setdiff1d(np.arange(1, other.num_items + 1), there[alike])
    vectors[new] = encode(model, new)
    return StudentRanker(model, vectors)
