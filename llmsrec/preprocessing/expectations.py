"""What splits must be before anyone trains on them, as Great Expectations suites with Data Docs."""

import os
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmsrec.core.errors import DataError
from llmsrec.core.files import atomic_directory, write_json
from llmsrec.data.catalog import COLUMNS
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Splits, Targets
from llmsrec.preprocessing.k_core import SplitsConfig

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read on import
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports what Python has deprecated
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.core.run_identifier import RunIdentifier


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
STAMP = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
TRACKING = re.compile(r'src="https://great-expectations-web-assets[^"]*"')


@dataclass(frozen=True)
class Table:
    """A table of the splits, and what is expected of it: (name, description, expectation)."""

    name: str
    frame: pd.DataFrame
    expected: list[tuple[str, str, Any]]


def validate(splits: Splits, config: SplitsConfig, *, report: Path, docs: Path) -> None:
    """Check everything, write the report and the Data Docs, then raise if anything failed."""
    moment = datetime.fromtimestamp(int(splits.sequences.timestamps.max()) / 1000, UTC)
    results = _run(_tables(splits, config), docs, moment)
    failed = [result for result in results if not result["success"]]
    write_json(report, {"success": not failed, "results": results})
    if failed:
        told = "; ".join(
            f"{result['name']} ({result['description']}): {result['observed']}" for result in failed
        )
        raise DataError(
            f"the splits fail {len(failed)} expectations: {told}. See {docs}/index.html"
        )


def _tables(splits: Splits, config: SplitsConfig) -> list[Table]:
    tables = [_users(splits, config), _items(splits, config), _interactions(splits)]
    for part, targets in splits.targets.items():
        tables.append(_targets(part, splits, targets, config))
        for mode, drawn in (
            ("retrieval", splits.candidates[part]),
            ("generation", splits.generation_candidates[part]),
        ):
            tables.append(_candidates(f"{part}_{mode}", splits, targets, drawn))
    return tables


def _users(splits: Splits, config: SplitsConfig) -> Table:
    frame = pd.DataFrame({"user_id": splits.user_ids, "train_length": splits.train_lengths})
    least = 1 if config.split == "leave_one_out" else 0
    return Table(
        "users",
        frame,
        [
            ("enough_users", f"at least {config.min_users} users (splits.min_users)",
             gxe.ExpectTableRowCountToBeBetween(min_value=config.min_users)),
            ("user_ids_unique", "one row a user", gxe.ExpectColumnValuesToBeUnique(column="user_id")),
            ("users_train", f"every user trains on at least {least} purchases",
             gxe.ExpectColumnValuesToBeBetween(column="train_length", min_value=least)),
        ],
    )  # fmt: skip


def _items(splits: Splits, config: SplitsConfig) -> Table:
    return Table(
        "items",
        splits.catalog.items.fillna(""),  # lengths of nulls would pass unseen
        [
            ("item_schema", "the columns of a catalogue, in order",
             gxe.ExpectTableColumnsToMatchOrderedList(column_list=COLUMNS)),
            ("enough_items", f"at least {config.min_items} items (splits.min_items)",
             gxe.ExpectTableRowCountToBeBetween(min_value=config.min_items)),
            ("item_ids_unique", "one row an item", gxe.ExpectColumnValuesToBeUnique(column="item_id")),
            ("titles_present", "every item has a title or a placeholder",
             gxe.ExpectColumnValueLengthsToBeBetween(column="title", min_value=1)),
            ("descriptions_present", "every item has a description or a placeholder",
             gxe.ExpectColumnValueLengthsToBeBetween(column="description", min_value=1)),
        ],
    )  # fmt: skip


def _interactions(splits: Splits) -> Table:
    sequences = splits.sequences
    users = np.repeat(np.arange(len(sequences)), sequences.lengths)
    step = np.diff(sequences.timestamps, prepend=sequences.timestamps[:1])
    step[sequences.offsets[:-1]] = 0
    frame = pd.DataFrame(
        {
            "user_index": users,
            "item_index": sequences.items,
            "timestamp": sequences.timestamps,
            "time_since_previous": step,
        }
    )
    return Table(
        "interactions",
        frame,
        [
            ("known_users", "no unknown user",
             gxe.ExpectColumnValuesToBeBetween(column="user_index", min_value=0, max_value=splits.num_users - 1)),
            ("known_items", "no unknown item",
             gxe.ExpectColumnValuesToBeBetween(column="item_index", min_value=1, max_value=splits.num_items)),
            ("order_in_time", "a user's purchases stand in order of time",
             gxe.ExpectColumnValuesToBeBetween(column="time_since_previous", min_value=0)),
            ("pairs_unique", "a user has an item once",
             gxe.ExpectCompoundColumnsToBeUnique(column_list=["user_index", "item_index"])),
        ],
    )  # fmt: skip


def _targets(part: str, splits: Splits, targets: Targets, config: SplitsConfig) -> Table:
    """Later than all that trains; for test, later than what validates too."""
    known = splits.train_lengths.copy()
    if part == "test":
        valid = splits.targets["valid"]
        np.maximum.at(known, valid.users, valid.positions + 1)
    frame = pd.DataFrame(
        {
            "user_index": targets.users,
            "position": targets.positions,
            "after_known": targets.positions - known[targets.users],
        }
    )
    expected = [
        (f"{part}_present", f"someone has a {part} target", gxe.ExpectTableRowCountToBeBetween(min_value=1)),
        (f"{part}_after_known", f"{part} targets come after all that is known before them",
         gxe.ExpectColumnValuesToBeBetween(column="after_known", min_value=0)),
    ]  # fmt: skip
    if not (config.split == "global_temporal" and config.temporal_target == "successive"):
        expected.append((f"one_{part}_target", f"one {part} target a user",
                         gxe.ExpectColumnValuesToBeUnique(column="user_index")))  # fmt: skip
    return Table(f"{part}_targets", frame, expected)


def _candidates(name: str, splits: Splits, targets: Targets, drawn: Candidates) -> Table:
    users, positions = targets.users[drawn.rows], targets.positions[drawn.rows]
    answers = splits.sequences.items[splits.sequences.offsets[users] + positions]
    ordered = np.sort(drawn.items, axis=1)
    distinct = 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1)
    frame = pd.DataFrame(
        {
            "distinct": distinct,
            "bought": _bought(splits.sequences, users, drawn.items),
            "target_in_place": drawn.targets == answers,
        }
    )
    width = drawn.items.shape[1]
    return Table(
        f"candidates_{name}",
        frame,
        [
            (f"{name}_distinct", f"{width} different candidates",
             gxe.ExpectColumnValuesToBeBetween(column="distinct", min_value=width, max_value=width)),
            (f"{name}_holds_target", "the target stands at its column",
             gxe.ExpectColumnValuesToBeInSet(column="target_in_place", value_set=[True])),
            (f"{name}_unseen", "no candidate but the target was ever bought by the user",
             gxe.ExpectColumnValuesToBeBetween(column="bought", min_value=1, max_value=1)),
        ],
    )  # fmt: skip


def _bought(sequences: Sequences, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """How many of each row's items the user has, ever."""
    base = int(items.max(initial=0)) + int(sequences.items.max()) + 1
    owned = np.unique(
        np.repeat(np.arange(len(sequences)), sequences.lengths) * base + sequences.items
    )
    keys = users[:, None] * base + items
    found = np.minimum(np.searchsorted(owned, keys), len(owned) - 1)
    return np.asarray((owned[found] == keys).sum(axis=1))


def _run(tables: list[Table], docs: Path, moment: datetime) -> list[dict[str, Any]]:
    """All suites in one file-backed context of their own; its Data Docs are kept, nothing else.

    They are dated by the newest purchase (`moment`): the same data give the same pages, whenever they are checked."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Great Expectations warns of its own dependencies
        context = gx.get_context(mode="file", project_root_dir=folder)
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_pandas("splits")
        results = [row for table in tables for row in _validate(context, source, table, moment)]
        context.build_data_docs()
        built = next(Path(folder).rglob("local_site/index.html")).parent
        with atomic_directory(docs) as aside:
            shutil.copytree(built, aside, dirs_exist_ok=True)
            for page in sorted(aside.rglob("*.html")):
                page.write_text(
                    _settled(page.read_text(encoding="utf-8"), moment), encoding="utf-8"
                )
    return results


def _settled(page: str, moment: datetime) -> str:
    """The same page every time: one date, random ids numbered, and no logo that tells its maker who looks."""
    numbers: dict[str, str] = {}
    page = TRACKING.sub('src="data:,"', page)
    page = STAMP.sub(f"{moment:%Y%m%dT%H%M%S.%fZ}", page)
    return UUID.sub(lambda found: numbers.setdefault(found[0], f"id-{len(numbers)}"), page)


def _validate(context: Any, source: Any, table: Table, moment: datetime) -> list[dict[str, Any]]:
    asset = source.add_dataframe_asset(table.name)
    batch = asset.add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=table.name))
    for name, description, expectation in table.expected:
        expectation.meta = {"name": name, "description": description}
        expectation.notes = description
        suite.add_expectation(expectation)
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=table.name, data=batch, suite=suite)
    )
    checkpoint = context.checkpoints.add(
        gx.Checkpoint(
            name=table.name,
            validation_definitions=[definition],
            actions=[gx.checkpoint.UpdateDataDocsAction(name="docs")],
        )
    )
    run_id = RunIdentifier(run_name=table.name, run_time=moment)
    outcome = checkpoint.run(batch_parameters={"dataframe": table.frame}, run_id=run_id)
    (validated,) = outcome.run_results.values()
    return [_row(result) for result in validated.results]


def _row(result: Any) -> dict[str, Any]:
    found = result.result or {}
    unexpected = found.get("unexpected_count")
    if "observed_value" in found:
        observed = str(found["observed_value"])
    else:
        observed = f"{unexpected} of {found.get('element_count')} rows are not so"
    return {
        "name": result.expectation_config.meta["name"],
        "description": result.expectation_config.meta["description"],
        "success": bool(result.success),
        "observed": observed,
        "unexpected": int(unexpected or 0),
        "examples": [str(value) for value in found.get("partial_unexpected_list", [])[:3]],
    }
