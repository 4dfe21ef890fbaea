"""Seeded randomness: a resumed run draws what an uninterrupted run draws."""

import numpy as np
import torch


def generator(*key: int) -> np.random.Generator:
    """A generator that depends on the key (seed, epoch, step, ...) alone."""
    return np.random.default_rng(key)


def seed_torch(seed: int) -> None:
    """Seed torch and use deterministic algorithms where there are any, with a warning elsewhere.

    The same seed gives the same numbers on one kind of processor with one number of threads."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # deterministic algorithms would otherwise write all new memory twice
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
