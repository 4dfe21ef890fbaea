"""The teacher as a ranker: the state after the last purchase times every item's embedding."""

import numpy as np
from jaxtyping import Float

from llmsrec.data.sequences import Sequences
from llmsrec.teacher.sasrec import SASRec


class TeacherRanker:
    def __init__(self, model: SASRec) -> None:
        self.model = model

    def score(self, histories: Sequences) -> Float[np.ndarray, "users indices"]:
        return (self.model.represent(histories) @ self.model.item_table.T).cpu().numpy()

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        return self.model.represent(histories).cpu().numpy()
