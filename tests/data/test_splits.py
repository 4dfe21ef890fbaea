"""Splits on disk: save and load round trip, or an error that names the missing file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import sha256
from llmsrec.data.splits import Candidates, Splits
from llmsrec.preprocessing.splitting import split
from tests.conftest import interactions_of, markov_histories, splits_config, with_texts


@pytest.fixture(scope="module")
def splits() -> Splits:
    config = splits_config(generation_negatives=0, max_users=30)
    return with_texts(split(interactions_of(markov_histories(50, 40, 0)), config))


def assert_same(first: Candidates, second: Candidates) -> None:
    for name in ("rows", "items", "target_columns"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), strict=True)


def test_save_and_load_round_trip(splits: Splits, tmp_path: Path) -> None:
    splits.save(tmp_path / "splits")
    loaded = Splits.load(tmp_path / "splits")
    pd.testing.assert_frame_equal(loaded.catalog.items, splits.catalog.items)
    assert loaded.user_ids == splits.user_ids
    for name in ("offsets", "items", "timestamps"):
        first, second = getattr(loaded.sequences, name), getattr(splits.sequences, name)
        np.testing.assert_array_equal(first, second, strict=True)
    np.testing.assert_array_equal(loaded.train_lengths, splits.train_lengths, strict=True)
    for part in ("valid", "test"):
        first, second = loaded.targets[part], splits.targets[part]
        np.testing.assert_array_equal(first.users, second.users, strict=True)
        np.testing.assert_array_equal(first.positions, second.positions, strict=True)
        assert_same(loaded.candidates[part], splits.candidates[part])
        assert_same(loaded.generation_candidates[part], splits.generation_candidates[part])


def test_two_saves_write_the_same_bytes(splits: Splits, tmp_path: Path) -> None:
    digests = []
    for name in ("first", "second"):
        splits.save(tmp_path / name)
        Splits.load(tmp_path / name).save(tmp_path / name)  # replaces the splits by their own copy
        digests.append({file.name: sha256(file) for file in (tmp_path / name).iterdir()})
    assert digests[0] == digests[1]
    assert len(digests[0]) == 9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_the_history_of_a_target_is_all_that_precedes_it(splits: Splits) -> None:
    """Leave-one-out: the training purchases for valid; these and the valid purchase for test."""
    for part, extra in (("valid", 0), ("test", 1)):
        evaluated, histories = splits.evaluated(part), splits.histories(part)
        assert len(histories) == len(evaluated) == len(splits.candidates[part]) == 30
        for row, user in enumerate(evaluated.users.tolist()):
            bought = splits.sequences[user].tolist()
            length = len(splits.train[user]) + extra
            assert histories[row].tolist() == bought[:length]
            assert int(splits.candidates[part].targets[row]) == bought[length]


def test_sizes_are_those_of_the_users_and_the_catalog(splits: Splits) -> None:
    assert (splits.num_users, splits.num_items) == (50, len(splits.catalog))
    assert splits.train.lengths.tolist() == splits.train_lengths.tolist()


@pytest.mark.parametrize(
    "name",
    [
        "items.parquet",
        "users.parquet",
        "interactions.parquet",
        "valid_targets.parquet",
        "test_candidates_retrieval.parquet",
        "valid_candidates_generation.parquet",
    ],
)
def test_the_error_names_a_missing_file(splits: Splits, tmp_path: Path, name: str) -> None:
    splits.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ArtifactError, match=rf"{name} is missing: run `dvc repro`"):
        Splits.load(tmp_path)
