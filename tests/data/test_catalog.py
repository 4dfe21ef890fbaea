"""Ids to indices and back, and the errors of a catalog."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmsrec.core.errors import DataError
from llmsrec.data.catalog import COLUMNS, Catalog


@pytest.fixture
def catalog() -> Catalog:
    rows = [(1, "P", "Lamp", "Bright", "Lux", ""), (2, "Q", "Désk 🎸", "Wide", "", "Home")]
    return Catalog(pd.DataFrame(rows, columns=COLUMNS))


def test_items_are_numbered_from_one_and_zero_is_padding(catalog: Catalog) -> None:
    assert (len(catalog), catalog.num_items) == (2, 2)
    assert catalog.titles == ["", "Lamp", "Désk 🎸"]
    assert [catalog.item_id(1), catalog.item_id(2)] == ["P", "Q"]


def test_indices_keep_the_order_of_the_ids(catalog: Catalog) -> None:
    assert catalog.indices(["Q", "P", "Q"]).tolist() == [2, 1, 2]
    assert catalog.indices([]).dtype == np.int64


def test_the_error_names_an_unknown_id(catalog: Catalog) -> None:
    with pytest.raises(DataError, match="item 'R' is not in the catalog of 2 items"):
        catalog.indices(["P", "R"])


@pytest.mark.parametrize("index", [-1, 0, 3])
def test_an_index_outside_the_catalog_is_an_error(catalog: Catalog, index: int) -> None:
    with pytest.raises(DataError, match=rf"item_index {index} is not in 1\.\.2"):
        catalog.item_id(index)


def test_other_columns_are_an_error() -> None:
    with pytest.raises(DataError, match="the catalog has columns"):
        Catalog(pd.DataFrame({"item_id": ["P"]}))


def test_save_and_load_round_trip(catalog: Catalog, tmp_path: Path) -> None:
    catalog.save(tmp_path / "items.parquet")
    pd.testing.assert_frame_equal(Catalog.load(tmp_path / "items.parquet").items, catalog.items)
