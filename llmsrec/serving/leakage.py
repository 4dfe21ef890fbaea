"""Leakage: whether a model was trained on interactions that are held out now.

A bundle contains hashes of its training interactions, from which no history can be read. New files with old
interactions, or another sample of users, can hold out an interaction that the champion was trained on.
"""

import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt64

from llmsrec.core.errors import ArtifactError
from llmsrec.data.splits import Part, Splits

TRAINING_INTERACTIONS = "training_interactions.npy"


def training_interactions(splits: Splits) -> UInt64[np.ndarray, "n"]:
    """Sorted hashes of the training interactions."""
    users = np.repeat(np.arange(len(splits.train)), splits.train.lengths)
    return np.unique(_hashes(splits, users, splits.train.items))


def targets_in_training(champion: Path, splits: Splits, part: Part) -> Bool[np.ndarray, "users"]:
    """For each evaluated user, whether the champion was trained on the present target.

    Raises ArtifactError if the champion has no list of its training interactions."""
    if not (champion / TRAINING_INTERACTIONS).exists():
        raise ArtifactError(
            f"{champion} has no list of its training interactions ({TRAINING_INTERACTIONS} is missing)"
        )
    users, targets = splits.evaluated(part).users, splits.candidates[part].targets
    return np.isin(_hashes(splits, users, targets), np.load(champion / TRAINING_INTERACTIONS))


def _hashes(
    splits: Splits, users: Int[np.ndarray, "n"], items: Int[np.ndarray, "n"]
) -> UInt64[np.ndarray, "n"]:
    """Hashes of (user_id, item_id); indices differ between versions of the data."""
    names = splits.catalog.items["item_id"].tolist()
    digests = [
        hashlib.blake2b(
            f"{splits.user_ids[user]}\0{names[item - 1]}".encode(), digest_size=8
        ).digest()
        for user, item in zip(users.tolist(), items.tolist(), strict=True)
    ]
    return np.frombuffer(b"".join(digests), dtype=np.uint64)
