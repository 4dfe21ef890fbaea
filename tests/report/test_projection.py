"""How alike vectors are, against pairs taken one by one; and a map that keeps what is far apart apart."""

from itertools import combinations

import numpy as np
import pytest

from llmsrec.report.projection import effective_rank, mean_cosine, project


def test_similarity_is_the_mean_over_pairs() -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 7))
    slow = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(vectors, 2)]
    assert mean_cosine(vectors) == pytest.approx(np.mean(slow))
    assert mean_cosine(np.tile(vectors[:1], (5, 1))) == pytest.approx(1)


def test_effective_rank_of_known_spectra() -> None:
    even = np.concatenate([np.eye(6), -np.eye(6)])  # six directions, all alike
    assert effective_rank(even) == pytest.approx(6)
    assert effective_rank(np.tile([[1.0, 2.0]], (4, 1))) == 0
    line = np.array([[1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [1.0, -0.2]])
    assert 1 <= effective_rank(line) < 1.1


def test_two_clusters_stay_separate_and_reproducible() -> None:
    draws = np.random.default_rng(1)
    camps = np.repeat(np.eye(8)[:2], 10, axis=0) + 0.05 * draws.standard_normal((20, 8))
    found, again = project(camps, camps + 0.01), project(camps, camps + 0.01)
    assert np.array_equal(found.users, again.users)
    first, second = found.users[:10], found.users[10:]
    inside = np.linalg.norm(first - first.mean(axis=0), axis=1).max()
    assert np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)) > 5 * inside
    assert np.abs(found.items - found.users).max() < 0.1
