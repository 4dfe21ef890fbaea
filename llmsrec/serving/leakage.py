"""Which purchases a model was trained on, as hashes: nobody's history, but enough to know what it must not be asked.

A model goes on from the champion, or is compared with it, on a store that has moved on. Where new files carried older
purchases, or another sample of users was drawn, what is held out today may have been trained on then.
"""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt64

from llmsrec.core.errors import ArtifactError
from llmsrec.data.splits import Part, Splits

TRAINING_INTERACTIONS = "seen.npy"


def training_interactions(splits: Splits) -> UInt64[np.ndarray, "n"]:
    """The training purchases, sorted."""
    users = np.repeat(np.arange(len(splits.train)), splits.train.lengths)
    return np.unique(_hashes(splits, users, splits.train.items))


def targets_in_training(champion: Path, splits: Splits, part: Part) -> Bool[np.ndarray, "users"]:
    """Of each evaluated user, whether the champion was trained on what is asked for today."""
    if not (champion / TRAINING_INTERACTIONS).exists():
        raise ArtifactError(
            f"{champion} does not say what it was trained on ({TRAINING_INTERACTIONS} is missing)"
        )
    users, targets = splits.evaluated(part).users, splits.candidates[part].targets
    return np.isin(_hashes(splits, users, targets), np.load(champion / TRAINING_INTERACTIONS))


def _hashes(
    splits: Splits, users: Int[np.ndarray, "n"], items: Int[np.ndarray, "n"]
) -> UInt64[np.ndarray, "n"]:
    """Of (user, item), by their ids: numbers change with the store."""
    names = splits.catalog.items["item_id"].tolist()
    found = [
        hashlib.blake2b(
            f"{splits.user_ids[user]}\0{names[item - 1]}".encode(), digest_size=8
        ).digest()
        for user, item in zip(users.tolist(), items.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(found), dtype=np.uint64)
