"""Valid splits pass; splits with one error fail only the expectation for it."""

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
from llmsrec.preprocessing.expectations import ExpectedTable, _tables, gx, validate
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.preprocessing.splitting import split
from llmsrec.relational.interactions import Interactions
from tests.conftest import interactions_of, markov_histories, splits_config

pytestmark = pytest.mark.filterwarnings("ignore")  # Great Expectations warns about its dependencies

Change = Callable[[Splits], Splits]
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
    """A check that returns the failing names; it skips tables that equal the valid ones."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("splits")
    valid: dict[str, ExpectedTable] = {}

    def is_valid(table: ExpectedTable) -> bool:
        other = valid.get(table.name)
        return (
            other is not None
            and [row[:2] for row in table.expectations] == [row[:2] for row in other.expectations]
            and table.frame.equals(other.frame)
        )

    def check(splits: Splits, config: SplitsConfig) -> list[str]:
        failed = []
        for table in _tables(splits, config):
            if is_valid(table):
                continue
            asset = source.add_dataframe_asset(f"{table.name} {len(source.assets)}")
            batch = asset.add_batch_definition_whole_dataframe("all")
            data = batch.get_batch({"dataframe": table.frame})
            failed += [
                name
                for name, _, expectation in table.expectations
                if not data.validate(expectation).success
            ]
        return failed

    assert check(splits, CONFIG) == []
    valid.update({table.name: table for table in _tables(splits, CONFIG)})
    return check


def changed(values: np.ndarray, index: Any, value: Any) -> np.ndarray:
    values = values.copy()
    values[index] = value
    return values


def with_sequences(splits: Splits, **arrays: np.ndarray) -> Splits:
    return replace(splits, sequences=replace(splits.sequences, **arrays))


def with_item_text(column: str, value: Any) -> Change:
    """Change one text of the first item."""

    def change(splits: Splits) -> Splits:
        items = splits.catalog.items.copy()
        items[column] = [value, *items[column][1:]]
        return replace(splits, catalog=Catalog(items))

    return change


def another_column(splits: Splits) -> Splits:
    catalog = Catalog(splits.catalog.items.copy())
    catalog.items["price"] = 1
    return replace(splits, catalog=catalog)


def an_unknown_user(splits: Splits) -> Splits:
    """Add a purchase by a user that does not exist."""
    old = splits.sequences
    extended = Sequences(
        np.append(old.offsets, old.offsets[-1] + 1),
        np.append(old.items, 1),
        np.append(old.timestamps, 0),
    )
    return replace(splits, sequences=extended)


def no_target(part: Part) -> Change:
    empty = np.zeros(0, dtype=np.int64)

    def change(splits: Splits) -> Splits:
        splits = replace(splits, targets={**splits.targets, part: Targets(empty, empty)})
        for mode in ("retrieval", "generation"):
            remove = candidates(
                part, mode, lambda _, drawn: Candidates(empty, drawn.items[:0], empty)
            )
            splits = remove(splits)
        return splits

    return change


def a_second_target(part: Part) -> Change:
    def change(splits: Splits) -> Splits:
        old = splits.targets[part]
        both = np.append(old.users, old.users[0]), np.append(old.positions, old.positions[0])
        return replace(splits, targets={**splits.targets, part: Targets(*both)})

    return change


def tested_on_the_valid_purchase(splits: Splits) -> Splits:
    """The test target of user 0 is the valid target, in the candidates too."""
    position = int(splits.targets["valid"].positions[0])
    old = splits.targets["test"]
    test = Targets(old.users, changed(old.positions, 0, position))
    splits = replace(splits, targets={**splits.targets, "test": test})
    for mode in ("retrieval", "generation"):
        move = candidates("test", mode, lambda splits, drawn: replace(
            drawn, items=changed(drawn.items, (0, drawn.target_columns[0]), splits.sequences[0][position])
        ))  # fmt: skip
        splits = move(splits)
    return splits


def candidates(part: Part, mode: str, modify: Callable[[Splits, Candidates], Candidates]) -> Change:
    name = "candidates" if mode == "retrieval" else "generation_candidates"

    def change(splits: Splits) -> Splits:
        drawn = getattr(splits, name)
        return replace(splits, **{name: {**drawn, part: modify(splits, drawn[part])}})

    return change


def other_column(drawn: Candidates, steps: int) -> int:
    """A column of the first row that does not hold the target."""
    return int(drawn.target_columns[0] + steps) % drawn.items.shape[1]


def a_negative_twice(_: Splits, drawn: Candidates) -> Candidates:
    first, second = other_column(drawn, 1), other_column(drawn, 2)
    return replace(drawn, items=changed(drawn.items, (0, first), drawn.items[0, second]))


def wrong_target_column(_: Splits, drawn: Candidates) -> Candidates:
    return replace(drawn, target_columns=changed(drawn.target_columns, 0, other_column(drawn, 1)))


def a_purchase_among_the_negatives(splits: Splits, drawn: Candidates) -> Candidates:
    """The first purchase of user 0, who has row 0."""
    return replace(
        drawn, items=changed(drawn.items, (0, other_column(drawn, 1)), splits.sequences[0][0])
    )


ERRORS: list[tuple[str, Change]] = [
    ("user_ids_unique", lambda s: replace(s, user_ids=[s.user_ids[1], *s.user_ids[1:]])),
    ("users_train", lambda s: replace(s, train_lengths=changed(s.train_lengths, 0, 0))),
    ("item_schema", another_column),
    ("item_ids_unique", lambda s: with_item_text("item_id", s.catalog.item_id(2))(s)),
    ("titles_present", with_item_text("title", "")),
    ("titles_present", with_item_text("title", None)),
    ("descriptions_present", with_item_text("description", "")),
    ("descriptions_present", with_item_text("description", None)),
    ("known_users", an_unknown_user),
    ("known_items", lambda s: with_sequences(s, items=changed(s.sequences.items, 0, 0))),
    ("known_items", lambda s: with_sequences(s, items=changed(s.sequences.items, 0, s.num_items + 1))),
    ("order_in_time", lambda s: with_sequences(
        s, timestamps=changed(s.sequences.timestamps, 0, s.sequences.timestamps[1] + 1)
    )),
    ("pairs_unique", lambda s: with_sequences(s, items=changed(s.sequences.items, 1, s.sequences.items[0]))),
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
            ("holds_target", wrong_target_column),
            ("unseen", a_purchase_among_the_negatives),
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), ERRORS, ids=[name for name, _ in ERRORS])
def test_an_error_fails_only_its_expectation(
    splits: Splits, failing: Callable[..., list[str]], name: str, change: Change
) -> None:
    assert failing(change(splits), CONFIG) == [name]


def test_too_few_users_or_items_fail(splits: Splits, failing: Callable[..., list[str]]) -> None:
    users, items = splits.num_users, splits.num_items
    assert failing(splits, splits_config(min_users=users, min_items=items)) == []
    assert failing(splits, splits_config(min_users=users + 1)) == ["enough_users"]
    assert failing(splits, splits_config(min_items=items + 1)) == ["enough_items"]


def test_every_expectation_has_an_error_that_it_detects(splits: Splits) -> None:
    names = [name for table in _tables(splits, CONFIG) for name, _, _ in table.expectations]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in ERRORS} | {"enough_users", "enough_items"}


@pytest.mark.parametrize("target", ["last", "first", "successive"])
def test_global_temporal_splits_pass(
    interactions: Interactions, failing: Callable[..., list[str]], target: str
) -> None:
    config = splits_config(split="global_temporal", temporal_share=0.2, temporal_target=target)
    splits = split(interactions, config)
    assert (splits.train_lengths == 0).any()  # some users have no purchase before the cut
    assert failing(splits, config) == []


def read(report: Path) -> tuple[bool, dict[str, bool]]:
    document = json.loads(report.read_text())
    return document["success"], {row["name"]: row["success"] for row in document["results"]}


def test_valid_splits_pass_and_write_report_and_docs(splits: Splits, tmp_path: Path) -> None:
    report, docs = tmp_path / "report.json", tmp_path / "docs"
    validate(splits, CONFIG, report=report, docs=docs)
    success, results = read(report)
    assert success
    assert all(results.values())
    assert set(results) == {name for name, _ in ERRORS} | {"enough_users", "enough_items"}
    assert "<html" in (docs / "index.html").read_text().lower()
    pages = {page.stem for page in (docs / "expectations").glob("*.html")}
    assert pages == {table.name for table in _tables(splits, CONFIG)}


def test_invalid_splits_raise_and_write_report_and_docs(splits: Splits, tmp_path: Path) -> None:
    report, docs = tmp_path / "report.json", tmp_path / "docs"
    docs.mkdir()
    (docs / "of_an_earlier_run.html").touch()
    invalid = with_item_text("title", "")(a_second_target("test")(splits))
    with pytest.raises(DataError) as caught:
        validate(invalid, CONFIG, report=report, docs=docs)
    assert str(caught.value) == (
        "the splits fail 2 expectations: titles_present (every item has a title or a placeholder): "
        f"1 of {splits.num_items} rows fail; one_test_target (one test target a user): "
        f"2 of {splits.num_users + 1} rows fail. See {docs}/index.html"
    )
    success, results = read(report)
    assert not success
    assert {name for name, passed in results.items() if not passed} == {
        "titles_present", "one_test_target"
    }  # fmt: skip
    assert (docs / "index.html").exists()
    assert not (docs / "of_an_earlier_run.html").exists()
    assert list((docs / "validations" / "test_targets").rglob("*.html"))
