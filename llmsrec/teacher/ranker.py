"""The teacher as a ranker: the state after the last purchase times every item's embedding."""

from jaxtyping import Float
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.evaluation.ranker import VectorRanker
from llmsrec.teacher.sasrec import SASRec


class TeacherRanker(VectorRanker):
    def __init__(self, model: SASRec) -> None:
        super().__init__(model.item_table)
        self.model = model

    def represent(self, histories: Sequences) -> Float[Tensor, "users size"]:
        return self.model.represent(histories)
