"""Batches for the teacher: every next item once, and negatives that were never bought."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.data.sequences import from_rows
from llmsrec.training.batches import NegativeSampler, bucket_by_length, epoch_users

NUM_ITEMS = 60
histories = st.lists(
    st.lists(st.integers(1, NUM_ITEMS), min_size=2, max_size=40), min_size=1, max_size=12
)
Position = tuple[int, tuple[int, ...], int]  # a user, the prefix, the next item


def slow_positions(rows: list[list[int]], users: list[int], max_length: int) -> Counter[Position]:
    """The positions of specification 4.1: each of the last purchases after its prefix."""
    actual: Counter[Position] = Counter()
    for user in users:
        window = rows[user][-(max_length + 1) :]
        actual.update((user, tuple(window[:end]), window[end]) for end in range(1, len(window)))
    return actual


@given(histories, st.integers(1, 30), st.data())
@settings(deadline=None)
def test_every_position_is_followed_by_its_next_item(
    rows: list[list[int]], max_length: int, data: st.DataObject
) -> None:
    """For every user of the batch, also one drawn twice, whichever group it came into."""
    users = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=15))
    actual: Counter[Position] = Counter()
    for group in bucket_by_length(from_rows(rows), np.array(users), max_length):
        targets, owners = iter(group.targets.tolist()), iter(group.users.tolist())
        for inputs in group.inputs.tolist():
            prefix = [item for item in inputs if item]
            assert inputs == [0] * (len(inputs) - len(prefix)) + prefix  # left padded
            for end in range(1, len(prefix) + 1):
                actual[next(owners), tuple(prefix[:end]), next(targets)] += 1
        assert not [*targets, *owners]
    assert actual == slow_positions(rows, users, max_length)


@given(histories)
@settings(deadline=None)
def test_a_long_history_does_not_pad_short_ones(rows: list[list[int]]) -> None:
    for group in bucket_by_length(from_rows(rows), np.arange(len(rows)), 40):
        shortest = int((group.inputs != 0).sum(dim=1).min())
        assert group.inputs.shape[1] <= max(8, 2 * shortest)


@given(st.integers(1, 50), st.integers(1, 20))
def test_shuffling_shows_every_user_once_an_epoch(num_users: int, batch_size: int) -> None:
    batches = list(epoch_users(num_users, batch_size, "shuffle", np.random.default_rng(0)))
    assert sorted(np.concatenate(batches)) == list(range(num_users))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)


def test_another_epoch_has_another_order() -> None:
    first, second, again = (
        np.concatenate(list(epoch_users(50, 7, "shuffle", np.random.default_rng(seed))))
        for seed in (0, 1, 0)
    )
    assert (first == again).all()
    assert (first != second).any()


@pytest.mark.parametrize(
    ("num_users", "batch_size", "batches"), [(10, 3, 3), (9, 3, 3), (128, 128, 1), (5, 8, 1)]
)
def test_with_replacement_draws_as_many_batches_as_fit(
    num_users: int, batch_size: int, batches: int
) -> None:
    draws = np.random.default_rng(0)
    actual = list(epoch_users(num_users, batch_size, "with_replacement", draws))
    assert len(actual) == batches
    assert all(len(batch) == min(num_users, batch_size) for batch in actual)
    assert all(((batch >= 0) & (batch < num_users)).all() for batch in actual)


def test_with_replacement_repeats_some_users_and_skips_none_for_ever() -> None:
    draws = np.random.default_rng(0)
    epoch = np.concatenate(list(epoch_users(100, 10, "with_replacement", draws)))
    assert len(np.unique(epoch)) < 100
    more = [batch for _ in range(20) for batch in epoch_users(100, 10, "with_replacement", draws)]
    assert len(np.unique(more)) == 100


@given(
    st.lists(st.sets(st.integers(1, 12), max_size=11), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(0, 99),
)
@settings(deadline=None)
def test_negatives_were_never_bought_by_that_user(
    rows: list[set[int]], count: int, seed: int
) -> None:
    if not any(rows):
        rows = [{1}]
    sampler = NegativeSampler(from_rows([sorted(row) for row in rows]), 12)
    users = np.repeat(np.arange(len(rows)), 4)
    drawn = sampler.draw(users, count, np.random.default_rng(seed))
    assert drawn.shape == (len(users), count)
    for user, items in zip(users, drawn.tolist(), strict=True):
        assert not rows[user] & set(items)
        assert all(1 <= item <= 12 for item in items)


def test_the_sampler_knows_the_purchases_of_each_user() -> None:
    sampler = NegativeSampler(from_rows([[2, 5], [], [1, 5]]), 6)
    owned = sampler.contains(np.array([2, 0, 1, 0]), np.array([5, 1, 6]))
    assert owned.tolist() == [
        [True, True, False],
        [True, False, False],
        [False] * 3,
        [True, False, False],
    ]


def test_negatives_are_uniform_over_what_is_left() -> None:
    """Six items left of ten: 1/6 of 60,000 draws each, within five standard errors."""
    sampler = NegativeSampler(from_rows([[2, 5], [8, 3, 1, 7]]), 10)
    drawn = sampler.draw(np.full(6000, 1), 10, np.random.default_rng(0))
    counts: Any = Counter(drawn.flatten().tolist())
    assert set(counts) == {2, 4, 5, 6, 9, 10}
    spread = (60_000 * 1 / 6 * 5 / 6) ** 0.5
    assert all(abs(count - 10_000) < 5 * spread for count in counts.values())


def test_the_same_generator_draws_the_same_negatives() -> None:
    sampler = NegativeSampler(from_rows([[2, 5]]), 30)
    first, again, other = (
        sampler.draw(np.zeros(5, np.int64), 4, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
