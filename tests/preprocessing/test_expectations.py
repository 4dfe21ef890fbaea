"""Valid splits pass; splits spoilt in one place fail just the expectation that speaks of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pytest

from llmsrec.core.errors import DataError
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Part, Splits, Targets
from llmsrec.preprocessing.expectations import Table, _tables, gx, validate
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.preprocessing.splitting import split
from llmsrec.relational.interactions import Interactions
from tests.conftest import interactions_of, markov_histories, splits_config

pytestmark = pytest.mark.filterwarnings("ignore")  # Great Expectations warns of its dependencies

Spoil = Callable[[Splits], Splits]
CONFIG = splits_config()


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    rows = interactions_of(markov_histories(40, 40, 0)).rows
    items = rows.select("item_id").distinct()
    rest = {name: ibis.null("string") for name in ("description", "brand", "category")}
    return Interactions(rows, items.mutate(title=items.item_id, **rest))


@pytest.fixture(scope="module")
def splits(interactions: Interactions) -> Splits:
    return split(interactions, CONFIG)


@pytest.fixture(scope="module")
def failing(splits: Splits) -> Callable[[Splits, SplitsConfig], list[str]]:
    """The names that fail, in memory; a table that equals the valid one needs no second look."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("splits")
    valid: dict[str, Table] = {}

    def known(table: Table) -> bool:
        other = valid.get(table.name)
        return (
            other is not None
            and [told for _, told, _ in table.expected] == [told for _, told, _ in other.expected]
            and table.frame.equals(other.frame)
        )

    def check(splits: Splits, config: SplitsConfig) -> list[str]:
        failed = []
        for table in _tables(splits, config):
            if known(table):
                continue
            asset = source.add_dataframe_asset(f"{table.name} {len(source.assets)}")
            batch = asset.add_batch_definition_whole_dataframe("all")
            checked = batch.get_batch({"dataframe": table.frame})
            failed += [name for name, _, it in table.expected if not checked.validate(it).success]
        return failed

    assert check(splits, CONFIG) == []
    valid.update({table.name: table for table in _tables(splits, CONFIG)})
    return check


def changed(values: np.ndarray, place: Any, value: Any) -> np.ndarray:
    values = values.copy()
    values[place] = value
    return values


def bought(splits: Splits, **arrays: np.ndarray) -> Splits:
    return replace(splits, sequences=replace(splits.sequences, **arrays))


def item(column: str, value: Any) -> Spoil:
    """One text of the first item."""

    def spoil(splits: Splits) -> Splits:
        items = splits.catalog.items.copy()
        items[column] = [value, *items[column][1:]]
        return replace(splits, catalog=Catalog(items))

    return spoil


def another_column(splits: Splits) -> Splits:
    catalog = Catalog(splits.catalog.items.copy())
    catalog.items["price"] = 1
    return replace(splits, catalog=catalog)


def an_unknown_user(splits: Splits) -> Splits:
    """One purchase more than there are users to make it."""
    old = splits.sequences
    more = Sequences(
        np.append(old.offsets, old.offsets[-1] + 1),
        np.append(old.items, 1),
        np.append(old.timestamps, 0),
    )
    return replace(splits, sequences=more)


def no_target(part: Part) -> Spoil:
    none = np.zeros(0, dtype=np.int64)

    def spoil(splits: Splits) -> Splits:
        splits = replace(splits, targets={**splits.targets, part: Targets(none, none)})
        for mode in ("retrieval", "generation"):
            change = candidates(
                part, mode, lambda _, drawn: Candidates(none, drawn.items[:0], none)
            )
            splits = change(splits)
        return splits

    return spoil


def a_second_target(part: Part) -> Spoil:
    def spoil(splits: Splits) -> Splits:
        old = splits.targets[part]
        both = np.append(old.users, old.users[0]), np.append(old.positions, old.positions[0])
        return replace(splits, targets={**splits.targets, part: Targets(*both)})

    return spoil


def tested_on_the_valid_purchase(splits: Splits) -> Splits:
    """User 0 tests on the purchase that validates, candidates and all."""
    place = int(splits.targets["valid"].positions[0])
    old = splits.targets["test"]
    test = Targets(old.users, changed(old.positions, 0, place))
    splits = replace(splits, targets={**splits.targets, "test": test})
    for mode in ("retrieval", "generation"):
        change = candidates("test", mode, lambda splits, drawn: replace(
            drawn, items=changed(drawn.items, (0, drawn.target_columns[0]), splits.sequences[0][place])
        ))  # fmt: skip
        splits = change(splits)
    return splits


def candidates(part: Part, mode: str, change: Callable[[Splits, Candidates], Candidates]) -> Spoil:
    name = "candidates" if mode == "retrieval" else "generation_candidates"

    def spoil(splits: Splits) -> Splits:
        drawn = getattr(splits, name)
        return replace(splits, **{name: {**drawn, part: change(splits, drawn[part])}})

    return spoil


def beside(drawn: Candidates, steps: int) -> int:
    """A column of the first row that does not hold the target."""
    return int(drawn.target_columns[0] + steps) % drawn.items.shape[1]


def a_negative_twice(_: Splits, drawn: Candidates) -> Candidates:
    one, two = beside(drawn, 1), beside(drawn, 2)
    return replace(drawn, items=changed(drawn.items, (0, one), drawn.items[0, two]))


def another_place(_: Splits, drawn: Candidates) -> Candidates:
    return replace(drawn, target_columns=changed(drawn.target_columns, 0, beside(drawn, 1)))


def a_purchase_among_the_negatives(splits: Splits, drawn: Candidates) -> Candidates:
    """Row 0 is of user 0: their first purchase."""
    return replace(drawn, items=changed(drawn.items, (0, beside(drawn, 1)), splits.sequences[0][0]))


SPOILT: list[tuple[str, Spoil]] = [
    ("user_ids_unique", lambda s: replace(s, user_ids=[s.user_ids[1], *s.user_ids[1:]])),
    ("users_train", lambda s: replace(s, train_lengths=changed(s.train_lengths, 0, 0))),
    ("item_schema", another_column),
    ("item_ids_unique", lambda s: item("item_id", s.catalog.item_id(2))(s)),
    ("titles_present", item("title", "")),
    ("titles_present", item("title", None)),
    ("descriptions_present", item("description", "")),
    ("descriptions_present", item("description", None)),
    ("known_users", an_unknown_user),
    ("known_items", lambda s: bought(s, items=changed(s.sequences.items, 0, 0))),
    ("known_items", lambda s: bought(s, items=changed(s.sequences.items, 0, s.num_items + 1))),
    ("order_in_time", lambda s: bought(
        s, timestamps=changed(s.sequences.timestamps, 0, s.sequences.timestamps[1] + 1)
    )),
    ("pairs_unique", lambda s: bought(s, items=changed(s.sequences.items, 1, s.sequences.items[0]))),
    ("valid_present", no_target("valid")),
    ("valid_after_known", lambda s: replace(
        s, train_lengths=changed(s.train_lengths, 0, s.train_lengths[0] + 1)
    )),
    ("one_valid_target", a_second_target("valid")),
    ("test_present", no_target("test")),
    ("test_after_known", tested_on_the_valid_purchase),
    ("one_test_target", a_second_target("test")),
    *[
        (f"{part}_{mode}_{name}", candidates(part, mode, change))  # type: ignore[arg-type]
        for part in ("valid", "test")
        for mode in ("retrieval", "generation")
        for name, change in (
            ("distinct", a_negative_twice),
            ("holds_target", another_place),
            ("unseen", a_purchase_among_the_negatives),
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("name", "spoil"), SPOILT, ids=[name for name, _ in SPOILT])
def test_a_spoilt_place_fails_just_its_expectation(
    splits: Splits, failing: Callable[..., list[str]], name: str, spoil: Spoil
) -> None:
    assert failing(spoil(splits), CONFIG) == [name]


def test_too_small_a_store_fails(splits: Splits, failing: Callable[..., list[str]]) -> None:
    users, items = splits.num_users, splits.num_items
    assert failing(splits, splits_config(min_users=users, min_items=items)) == []
    assert failing(splits, splits_config(min_users=users + 1)) == ["enough_users"]
    assert failing(splits, splits_config(min_items=items + 1)) == ["enough_items"]


def test_every_expectation_was_spoilt(splits: Splits) -> None:
    names = [name for table in _tables(splits, CONFIG) for name, _, _ in table.expected]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in SPOILT} | {"enough_users", "enough_items"}


@pytest.mark.parametrize("target", ["last", "first", "successive"])
def test_a_cut_in_time_passes_too(
    interactions: Interactions, failing: Callable[..., list[str]], target: str
) -> None:
    config = splits_config(split="global_temporal", temporal_share=0.2, temporal_target=target)
    splits = split(interactions, config)
    assert (splits.train_lengths == 0).any()  # some come after the cut only
    assert failing(splits, config) == []


def read(report: Path) -> tuple[bool, dict[str, bool]]:
    document = json.loads(report.read_text())
    return document["success"], {row["name"]: row["success"] for row in document["results"]}


def test_valid_splits_pass_and_leave_report_and_docs(splits: Splits, tmp_path: Path) -> None:
    report, docs = tmp_path / "report.json", tmp_path / "docs"
    validate(splits, CONFIG, report=report, docs=docs)
    success, results = read(report)
    assert success
    assert all(results.values())
    assert set(results) == {name for name, _ in SPOILT} | {"enough_users", "enough_items"}
    assert "<html" in (docs / "index.html").read_text().lower()
    pages = {page.stem for page in (docs / "expectations").glob("*.html")}
    assert pages == {table.name for table in _tables(splits, CONFIG)}


def test_spoilt_splits_raise_and_still_leave_report_and_docs(
    splits: Splits, tmp_path: Path
) -> None:
    report, docs = tmp_path / "report.json", tmp_path / "docs"
    docs.mkdir()
    (docs / "of_an_older_run.html").touch()
    spoilt = item("title", "")(a_second_target("test")(splits))
    with pytest.raises(DataError) as caught:
        validate(spoilt, CONFIG, report=report, docs=docs)
    assert str(caught.value) == (
        "the splits fail 2 expectations: titles_present (every item has a title or a placeholder): "
        f"1 of {splits.num_items} rows are not so; one_test_target (one test target a user): "
        f"2 of {splits.num_users + 1} rows are not so. See {docs}/index.html"
    )
    success, results = read(report)
    assert not success
    assert {name for name, passed in results.items() if not passed} == {
        "titles_present", "one_test_target"
    }  # fmt: skip
    assert (docs / "index.html").exists()
    assert not (docs / "of_an_older_run.html").exists()
    assert list((docs / "validations" / "test_targets").rglob("*.html"))
