"""Resampling against a loop with the same draws, and intervals that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmsrec.evaluation import bootstrap
from llmsrec.evaluation.bootstrap import holm, interval, resampled_means, two_sided_p


def slow_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """As many users as there are, drawn with replacement, and their mean: one resample at a time."""
    draws = np.random.default_rng(seed)
    users = len(values)
    return np.stack(
        [
            values[draws.integers(0, users, size=users, dtype=np.int32)].mean(axis=0)
            for _ in range(resamples)
        ]
    )


@pytest.mark.parametrize("held", [1, 100, 1 << 20])
def test_the_means_are_those_of_a_loop_with_the_same_draws(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """However many weights are held at a time."""
    monkeypatch.setattr(bootstrap, "CHUNK_VALUES", held)
    values = np.random.default_rng(0).random((23, 3))
    found = resampled_means(values, 50, seed=7)
    np.testing.assert_allclose(found, slow_means(values, 50, seed=7), atol=1e-6)


@pytest.mark.parametrize("held", [1, 1 << 20])
def test_a_sampled_user_contributes_all_its_targets(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    """Against concatenated rows of the drawn users; the rows of a user need not be neighbours."""
    monkeypatch.setattr(bootstrap, "CHUNK_VALUES", held)
    draws = np.random.default_rng(1)
    users = draws.integers(100, 109, size=40)
    values, owners = draws.random((40, 3)), np.unique(users)
    generator, slow = np.random.default_rng(7), []
    for _ in range(50):
        drawn = owners[generator.integers(0, len(owners), size=len(owners), dtype=np.int32)]
        slow.append(np.concatenate([values[users == user] for user in drawn]).mean(axis=0))
    np.testing.assert_allclose(resampled_means(values, 50, 7, users), slow, atol=1e-6)


def test_targets_of_one_user_are_not_independent() -> None:
    """The analytic standard error of a mean over users of equal size is that of the means of the users."""
    draws = np.random.default_rng(2)
    of_user = draws.normal(size=200)
    values = np.repeat(of_user, 5)[:, None] + 0.1 * draws.normal(size=(1000, 1))
    users = np.repeat(np.arange(200), 5)
    by_user = resampled_means(values, 2000, 0, users).std()
    expected = values.reshape(200, 5).mean(axis=1).std() / 200**0.5
    assert by_user == pytest.approx(expected, rel=0.1)
    assert resampled_means(values, 2000, 0).std() < 0.6 * expected


def test_one_target_per_user_gives_the_same_bits() -> None:
    values = np.random.default_rng(3).random((31, 2))
    plain = resampled_means(values, 40, 5)
    assert (resampled_means(values, 40, 5, np.arange(31) + 7) == plain).all()


def test_another_seed_draws_other_users() -> None:
    values = np.random.default_rng(0).random((23, 1))
    first, again, other = (resampled_means(values, 20, seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_intervals_have_their_nominal_coverage() -> None:
    """95% of 500 samples; the normal theory's 0.94 for 40 users, five standard errors (0.01 each) either way."""
    draws = np.random.default_rng(0)
    covered, widths = 0, []
    for seed in range(500):
        values = draws.normal(0.3, 1.0, size=(40, 1))
        found = interval(float(values.mean()), resampled_means(values, 300, seed)[:, 0])
        covered += found.low <= 0.3 <= found.high
        widths.append(found.high - found.low)
    assert 0.89 <= covered / 500 <= 0.99
    assert np.mean(widths) == pytest.approx(2 * 1.96 / 40**0.5, rel=0.1)


def test_the_same_users_are_drawn_for_every_column() -> None:
    """A system better by the same amount for each user is better for sure, though either alone is uncertain."""
    base = np.random.default_rng(0).random(60)
    means = resampled_means(np.stack([base, base + 0.01], axis=1), 500, seed=0)
    alone = interval(float(base.mean()), means[:, 0])
    gap = interval(0.01, means[:, 1] - means[:, 0])
    assert alone.high - alone.low > 0.1
    assert (gap.low, gap.high) == (pytest.approx(0.01, abs=1e-6), pytest.approx(0.01, abs=1e-6))


@pytest.mark.parametrize("columns", [1, 5, 31, 96])
def test_a_column_of_zeros_has_no_spread(columns: int) -> None:
    """Exactly: it is the difference of two equal systems, and rounding must not decide between them."""
    values = np.random.default_rng(1).random((301, columns))
    values[:, columns // 2] = 0
    means = resampled_means(values, 200, seed=0)[:, columns // 2]
    assert (means == 0).all()
    assert two_sided_p(means) == 1.0


def test_the_interval_is_the_middle_95_percent() -> None:
    found = interval(0.5, np.arange(1001) / 1000)
    assert found.as_dict() == {
        "value": 0.5,
        "low": pytest.approx(0.025),
        "high": pytest.approx(0.975),
    }


def test_p_is_twice_the_smaller_tail() -> None:
    assert two_sided_p(np.full(999, 0.2)) == 2 * 1 / 1000  # no more than 999 resamples can tell
    assert two_sided_p(np.full(999, -0.2)) == 2 * 1 / 1000
    assert two_sided_p(np.array([-1.0] * 9 + [1.0] * 90)) == 2 * 10 / 100
    assert two_sided_p(np.array([-1.0, 1.0])) == 1.0
    assert two_sided_p(np.zeros(99)) == 1.0  # equal systems cannot be told apart


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50))
def test_p_is_a_probability_whatever_the_sign(differences: list[float]) -> None:
    means = np.array(differences)
    assert 0 < two_sided_p(means) <= 1
    assert two_sided_p(means) == two_sided_p(-means)


def test_a_thousand_resamples_of_ten_thousand_users() -> None:
    values = np.random.default_rng(0).random((10_000, 16))
    means = resampled_means(values, 1000, seed=0)
    assert means.shape == (1000, 16)
    np.testing.assert_allclose(means.mean(axis=0), values.mean(axis=0), atol=5e-4)
    np.testing.assert_allclose(means.std(axis=0), values.std(axis=0) / 100, rtol=0.15)


def test_holm_by_hand() -> None:
    """0.01 counts four times, 0.02 three times, 0.03 twice but not less than 0.06 before it, 0.5 once."""
    found = holm(np.array([0.03, 0.01, 0.5, 0.02]))
    np.testing.assert_allclose(found, [0.06, 0.04, 0.5, 0.06])
    assert holm(np.array([0.9, 0.6])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(values: list[float]) -> None:
    """The procedure itself, at each level: the smallest first, until one is not small enough."""
    p = np.array(values)
    corrected = holm(p)
    for alpha in (0.01, 0.05, 0.3, 1.0):
        refused = np.zeros(len(p), dtype=bool)
        for left, place in zip(range(len(p), 0, -1), np.argsort(p, kind="stable"), strict=True):
            if p[place] * left >= alpha:
                break
            refused[place] = True
        assert ((corrected < alpha) == refused).all()
