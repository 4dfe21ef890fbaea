"""Users and items in the student's space, before and after training."""

import numpy as np
import torch

from llmsrec.data.splits import Splits
from llmsrec.report.projection import Projection, Vectors, project
from llmsrec.student.model import LLMSRec
from llmsrec.training.seeding import seed_torch

SAMPLE_SIZE = 300  # users, and items


@torch.no_grad()
def representation_maps(
    student: LLMSRec, splits: Splits, item_vectors: Vectors, users: Vectors, seed: int
) -> dict[str, Projection]:
    """Projections of a sample of test users and items, of the untrained and of the trained student."""
    draws = np.random.default_rng(seed)
    rows = np.sort(draws.permutation(len(users))[:SAMPLE_SIZE])
    items = np.sort(draws.permutation(splits.num_items)[:SAMPLE_SIZE])
    seed_torch(seed)
    untrained = LLMSRec(student.config, student.backbone, student.teacher, splits.catalog)
    untrained.init_soft_tokens()
    untrained.eval()
    histories = splits.histories("test").take(rows)
    before = project(
        untrained.represent_users(histories).cpu().numpy(),
        untrained.represent_items(1 + items).cpu().numpy(),
    )
    return {"before": before, "after": project(users[rows], item_vectors[1 + items])}
