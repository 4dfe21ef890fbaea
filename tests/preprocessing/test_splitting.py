"""Splits by hand, the partition of every history, and global temporal splits (specification 1, 9 and 10.10)."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.errors import DataError
from llmsrec.data.splits import Part, Splits
from llmsrec.preprocessing.candidates import normalize_title
from llmsrec.preprocessing.splitting import split, split_statistics, temporal_parts
from llmsrec.relational.interactions import Interactions
from tests.conftest import DAY, interactions_of, markov_histories, splits_config

# Purchases in order, one letter per item; the last is test, the one before is valid.
FIVE = {"Ann": "abcd", "Bob": "dcba", "Cem": "bad", "Dee": "ca", "Eve": "b"}


def with_titles(
    histories: dict[str, Any], times: dict[str, list[int]] | None = None, **titles: str
) -> Interactions:
    """Interactions and item titles; a title defaults to the id in upper case."""
    interactions = interactions_of({user: list(items) for user, items in histories.items()}, times)
    names = sorted({item for items in histories.values() for item in items})
    items = pd.DataFrame({"item_id": names, "title": [titles.get(n, n.upper()) for n in names]})
    items = items.assign(description=None, brand="Lux", category=None).astype("string")
    connection = interactions.rows.get_backend()
    return Interactions(interactions.rows, connection.create_table("texts", items))


def item_ids(splits: Splits, indices: np.ndarray) -> str:
    return "".join(splits.catalog.item_id(int(index)) for index in indices)


def targets(splits: Splits, part: Part) -> dict[str, tuple[str, str]]:
    """user -> (history, target) of the evaluated targets."""
    evaluated, histories = splits.evaluated(part), splits.histories(part)
    return {
        splits.user_ids[user]: (
            item_ids(splits, histories[row]),
            item_ids(splits, splits.candidates[part].targets[row : row + 1]),
        )
        for row, user in enumerate(evaluated.users)
    }


def without_negatives(**changes: Any) -> Any:
    return splits_config(negatives=0, generation_negatives=0, **changes)


def test_five_users_by_hand() -> None:
    splits = split(with_titles(FIVE), without_negatives())
    train = {user: item_ids(splits, splits.train[row]) for row, user in enumerate(splits.user_ids)}
    assert train == {"Ann": "ab", "Bob": "dc", "Cem": "b", "Dee": "", "Eve": ""}
    assert targets(splits, "valid") == {
        "Ann": ("ab", "c"),
        "Bob": ("dc", "b"),
        "Cem": ("b", "a"),
    }  # Dee's valid purchase is her first, so it has no history
    assert targets(splits, "test") == {
        "Ann": ("abc", "d"),
        "Bob": ("dcb", "a"),
        "Cem": ("ba", "d"),
        "Dee": ("c", "a"),
    }
    assert splits.sequences.times(2).tolist() == [(10_014 + day) * DAY for day in range(3)]


def test_the_catalog_is_sorted_by_id_and_has_texts_or_placeholders() -> None:
    splits = split(interactions_of({"U": ["z", "a", "m"]}), without_negatives())
    assert splits.catalog.items.to_numpy().tolist() == [
        [1, "a", "Empty title", "Empty description", "", ""],
        [2, "m", "Empty title", "Empty description", "", ""],
        [3, "z", "Empty title", "Empty description", "", ""],
    ]
    assert splits.sequences.items.tolist() == [3, 1, 2]
    titled = split(with_titles({"U": "zam"}, a="First"), without_negatives())
    assert titled.catalog.items.to_numpy().tolist()[0] == [
        1, "a", "First", "Empty description", "Lux", ""
    ]  # fmt: skip


def test_a_target_whose_item_was_dropped_is_skipped() -> None:
    """`rare` and `odd` are bought once: U has no test target, the history of V skips `odd` (specification 1)."""
    histories = {"U": ["a", "b", "c", "rare"], "V": ["c", "b", "odd", "a"]}
    config = without_negatives(kcore="single_pass", user_threshold=2, item_threshold=2)
    splits = split(with_titles(histories), config)
    assert targets(splits, "valid") == {"U": ("ab", "c")}
    assert targets(splits, "test") == {"V": ("cb", "a")}
    assert splits.train_lengths.tolist() == [2, 2]


@settings(max_examples=10, deadline=None)
@given(
    histories=st.dictionaries(
        st.text("UVWXYZ", min_size=1, max_size=2),
        st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=6, unique=True),
        min_size=2,
        max_size=8,
    )
)
def test_train_valid_and_test_partition_each_history_in_order(
    histories: dict[str, list[str]],
) -> None:
    splits = split(with_titles(histories), without_negatives())
    assert sorted(splits.user_ids) == sorted(histories)
    valid, test = targets(splits, "valid"), targets(splits, "test")
    for row, user in enumerate(splits.user_ids):
        bought = "".join(histories[user])
        train = item_ids(splits, splits.train[row])
        held_out = bought[len(train) :]
        assert item_ids(splits, splits.sequences[row]) == bought
        assert bought.startswith(train)
        assert len(held_out) == min(2, len(bought))
        assert user not in valid or valid[user] == (train, held_out[0])
        assert user not in test or test[user] == (bought[:-1], bought[-1])
        assert (user in valid, user in test) == (len(bought) >= 3, len(bought) >= 2)
        assert (np.diff(splits.sequences.times(row)) > 0).all()
    for part in splits.targets.values():
        assert len(set(part.users.tolist())) == len(part)  # one row each


def big_dataset(**titles: str) -> Interactions:
    return with_titles(markov_histories(60, 40, 0), **titles)


def test_the_same_seed_gives_the_same_candidates_and_another_seed_others() -> None:
    first, same, other = (split(big_dataset(), splits_config(seed=seed)) for seed in (0, 0, 1))
    for part in ("valid", "test"):
        for name in ("candidates", "generation_candidates"):
            one, two, three = (getattr(splits, name)[part] for splits in (first, same, other))
            assert np.array_equal(one.items, two.items)
            assert np.array_equal(one.target_columns, two.target_columns)
            assert not np.array_equal(one.items, three.items)
    assert not np.array_equal(first.candidates["valid"].items, first.candidates["test"].items)


def test_retrieval_and_generation_have_the_same_target_and_no_other_bought_item() -> None:
    splits = split(big_dataset(), splits_config())
    for part in ("valid", "test"):
        retrieval, generation = splits.candidates[part], splits.generation_candidates[part]
        assert np.array_equal(retrieval.rows, generation.rows)
        assert np.array_equal(retrieval.targets, generation.targets)
        assert (retrieval.items.shape[1], generation.items.shape[1]) == (10, 5)
        for row, user in enumerate(splits.evaluated(part).users):
            bought = set(splits.sequences[int(user)].tolist())
            for drawn in (retrieval, generation):
                assert set(drawn.items[row].tolist()) & bought == {int(drawn.targets[row])}


def test_generation_titles_differ_after_normalisation() -> None:
    """Half of the items have one of two titles, in three spellings."""
    spellings = ["Lamp", " lamp", "\u201cLAMP\u201d", "Desk", "desk ", "'Desk'"]
    titles = {f"I{number:03d}": spellings[number % 6] for number in range(0, 40, 2)}
    splits = split(big_dataset(**titles), splits_config(generation_negatives=12))
    for part in ("valid", "test"):
        for row in splits.generation_candidates[part].items.tolist():
            titles_of_row = {normalize_title(splits.catalog.titles[item]) for item in row}
            assert len(titles_of_row) == 13
    by_row = [
        {normalize_title(splits.catalog.titles[item]) for item in row}
        for row in splits.candidates["test"].items.tolist()
    ]
    assert min(map(len, by_row)) < 10  # retrieval ignores titles


@pytest.mark.parametrize(
    ("titles", "negatives"), [([], 0), (["Lamp"], 0), (["Lamp", "Desk", "Chair"], 2)]
)
def test_too_few_different_titles_lower_the_negatives_of_generation_only(
    titles: list[str], negatives: int, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {f"I{number:03d}": titles[number % len(titles)] for number in range(40 * bool(titles))}
    dataset = big_dataset(**named) if titles else interactions_of(markov_histories(60, 40, 0))
    splits = split(dataset, splits_config(generation_negatives=4))
    for part in ("valid", "test"):
        generation, retrieval = splits.generation_candidates[part], splits.candidates[part]
        assert generation.items.shape == (len(retrieval), 1 + negatives)
        assert np.array_equal(generation.targets, retrieval.targets)
    said = f"title generation gets {negatives} negatives instead of 4 (splits.generation_negatives)"
    assert said in capsys.readouterr().out


def test_max_users_evaluates_one_stored_sample() -> None:
    capped = split(big_dataset(), splits_config(max_users=20))
    assert len(capped.targets["test"]) == 60
    assert len(capped.candidates["test"]) == len(capped.histories("test")) == 20
    generation = capped.generation_candidates["test"]
    assert generation.rows.tolist() == capped.candidates["test"].rows.tolist()
    again = split(big_dataset(), splits_config(max_users=20))
    assert capped.candidates["test"].rows.tolist() == again.candidates["test"].rows.tolist()
    other = split(big_dataset(), splits_config(max_users=20, seed=1))
    assert capped.candidates["test"].rows.tolist() != other.candidates["test"].rows.tolist()


# Ten purchases on ten days; with a share of 0.2, days 8 and 9 are test and days 6 and 7 are valid.
GTS = {"Ann": "abcde", "Bob": "fgh", "Cem": "ia"}
GTS_DAYS = {"Ann": [0, 2, 6, 7, 8], "Bob": [1, 3, 9], "Cem": [4, 5]}


def global_temporal(target: str) -> Splits:
    config = without_negatives(split="global_temporal", temporal_share=0.2, temporal_target=target)
    return split(with_titles(GTS, GTS_DAYS), config)


def test_a_global_temporal_split_by_hand() -> None:
    splits = global_temporal("last")
    train = {user: item_ids(splits, splits.train[row]) for row, user in enumerate(splits.user_ids)}
    assert train == {"Ann": "ab", "Bob": "fg", "Cem": "ia"}
    assert targets(splits, "valid") == {"Ann": ("abc", "d")}
    assert targets(splits, "test") == {"Ann": ("abcd", "e"), "Bob": ("fg", "h")}
    assert targets(global_temporal("first"), "valid") == {"Ann": ("ab", "c")}
    successive = global_temporal("successive")
    evaluated = successive.evaluated("valid")
    assert evaluated.users.tolist() == [0, 0]
    assert evaluated.positions.tolist() == [2, 3]
    assert item_ids(successive, successive.candidates["valid"].targets) == "cd"


def test_a_first_purchase_after_the_cut_is_no_target() -> None:
    days = {"Ann": [0, 1, 2, 3, 4, 5, 6, 7], "New": [8, 9]}
    histories = {"Ann": "abcdefgh", "New": "ab"}
    splits = split(
        with_titles(histories, days),
        without_negatives(split="global_temporal", temporal_share=0.2, temporal_target="first"),
    )
    assert targets(splits, "test") == {"New": ("a", "b")}  # not a, which has no history


@settings(max_examples=10, deadline=None)
@given(
    days=st.lists(
        st.lists(st.integers(0, 30), min_size=1, max_size=6).map(sorted), min_size=3, max_size=8
    ),
    share=st.sampled_from([0.1, 0.2, 0.4]),
    target=st.sampled_from(["last", "first", "successive"]),
)
def test_no_training_time_lies_after_the_cut(
    days: list[list[int]], share: float, target: str
) -> None:
    histories = {f"U{u}": [chr(97 + p) for p in range(len(row))] for u, row in enumerate(days)}
    times = {f"U{u}": row for u, row in enumerate(days)}
    config = without_negatives(
        split="global_temporal", temporal_share=share, temporal_target=target
    )
    splits = split(with_titles(histories, times), config)
    train = splits.train.timestamps
    held_out = {
        part: splits.sequences.timestamps[
            splits.sequences.offsets[targets.users] + targets.positions
        ]
        for part, targets in splits.targets.items()
    }
    for later in held_out.values():
        assert train.max(initial=-1) < later.min(initial=10**18)
    assert held_out["valid"].max(initial=-1) < held_out["test"].min(initial=10**18)
    for row in range(splits.num_users):  # no purchase after the first cut is training data
        rest = splits.sequences.times(row)[splits.train_lengths[row] :]
        assert train.max(initial=-1) < rest.min(initial=10**18)


@settings(deadline=None)
@given(days=st.lists(st.integers(0, 9), min_size=5, max_size=60), share=st.floats(0.05, 0.45))
def test_temporal_parts_depend_on_time_only_and_have_about_the_share(
    days: list[int], share: float
) -> None:
    times = np.array(days, dtype=np.int64)
    parts = temporal_parts(times, share)
    order = np.argsort(times, kind="stable")
    assert (np.diff(parts[order]) >= 0).all()  # a later purchase is never in an earlier part
    for day in set(days):
        assert (
            len(set(parts[times == day].tolist())) == 1
        )  # purchases of one moment are in one part
    assert (parts == 2).sum() >= int(len(days) * share)
    ties = max(days.count(day) for day in set(days))
    assert (parts == 2).sum() <= len(days) * share + ties + 1


def test_statistics_by_hand() -> None:
    times = {"Ann": [1, 1, 2, 3], "Bob": [1, 2, 2, 2], "Cem": [1, 2, 3], "Dee": [5, 6], "Eve": [7]}
    statistics = split_statistics(split(with_titles(FIVE, times), without_negatives()))
    assert statistics == {
        "users": 5,
        "items": 4,
        "interactions": 14,
        "train_interactions": 5,
        "mean_length": 2.8,
        "median_length": 3.0,
        "max_length": 4,
        "density": 0.7,
        "tie_share": round(3 / 9, 6),
        "users_without_valid": 0.4,
        "users_without_test": 0.2,
        "valid_evaluated": 3,
        "test_evaluated": 4,
    }


def test_no_remaining_user_is_an_error() -> None:
    config = without_negatives(kcore="single_pass", user_threshold=9)
    with pytest.raises(DataError, match=r"no user survives splits\.user_threshold"):
        split(with_titles(FIVE), config)
