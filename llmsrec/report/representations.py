"""Users and items in the student's space, before it was taught and after: is everyone the same to it?"""

import numpy as np
import torch

from llmsrec.data.splits import Splits
from llmsrec.report.projection import Projection, Vectors, project
from llmsrec.serving.item_embeddings import ItemEmbeddings
from llmsrec.student.model import LLMSRec
from llmsrec.training.seeding import seed_torch

SHOWN = 300  # users, and items


@torch.no_grad()
def representation_maps(
    student: LLMSRec, splits: Splits, embeddings: ItemEmbeddings, users: Vectors, seed: int
) -> dict[str, Projection]:
    """Some test users and items in the student's space: with networks fresh as they start, and as they were taught."""
    draws = np.random.default_rng(seed)
    rows = np.sort(draws.permutation(len(users))[:SHOWN])
    items = np.sort(draws.permutation(splits.num_items)[:SHOWN])
    seed_torch(seed)
    untaught = LLMSRec(student.config, student.backbone, student.teacher, splits.catalog)
    untaught.init_soft_tokens()
    untaught.eval()
    shown = splits.histories("test").take(rows)
    before = project(
        untaught.represent_users(shown).cpu().numpy(),
        untaught.represent_items(1 + items).cpu().numpy(),
    )
    return {"before": before, "after": project(users[rows], embeddings.matrix[items])}
