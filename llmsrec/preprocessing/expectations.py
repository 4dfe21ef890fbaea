"""Checks of the splits before training, as Great Expectations suites with Data Docs."""

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
from llmsrec.preprocessing.candidates import contains, pair_keys
from llmsrec.preprocessing.k_core import TARGETS_NEED, SplitsConfig

os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read on import
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports deprecated modules
    import great_expectations as gx
    import great_expectations.expectations as gxe
    from great_expectations.core.run_identifier import RunIdentifier


Expectation = tuple[str, str, Any]  # name, description, expectation
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TIMESTAMP = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
TRACKING = re.compile(r'src="https://great-expectations-web-assets[^"]*"')


@dataclass(frozen=True)
class ExpectedTable:
    """A table of the splits and its expectations."""

    name: str
    frame: pd.DataFrame
    expectations: list[Expectation]


def validate(splits: Splits, config: SplitsConfig, *, report: Path, docs: Path) -> None:
    """Check the splits, write the report and the Data Docs, then raise DataError if an expectation failed."""
    run_time = datetime.fromtimestamp(int(splits.sequences.timestamps.max()) / 1000, UTC)
    results = _run(_tables(splits, config), docs, run_time)
    failed = [result for result in results if not result["success"]]
    write_json(report, {"success": not failed, "results": results})
    if failed:
        messages = "; ".join(
            f"{result['name']} ({result['description']}): {result['observed']}" for result in failed
        )
        raise DataError(
            f"the splits fail {len(failed)} expectations: {messages}. See {docs}/index.html"
        )


def _tables(splits: Splits, config: SplitsConfig) -> list[ExpectedTable]:
    tables = [_users(splits, config), _items(splits, config), _interactions(splits)]
    for part, targets in splits.targets.items():
        tables.append(_targets(part, splits, targets, config))
        for name, candidates in (
            ("retrieval", splits.candidates[part]),
            ("generation", splits.generation_candidates[part]),
        ):
            tables.append(_candidates(f"{part}_{name}", splits, targets, candidates))
    return tables


def _users(splits: Splits, config: SplitsConfig) -> ExpectedTable:
    frame = pd.DataFrame({"user_id": splits.user_ids, "train_length": splits.train_lengths})
    min_train = 1 if config.split == "leave_one_out" else 0
    return ExpectedTable("users", frame, [
        ("enough_users", f"at least {config.min_users} users (splits.min_users)",
         gxe.ExpectTableRowCountToBeBetween(min_value=config.min_users)),
        ("user_ids_unique", "one row a user", gxe.ExpectColumnValuesToBeUnique(column="user_id")),
        ("users_train", f"every user trains on at least {min_train} purchases; set splits.user_threshold to 3 or more",
         _between("train_length", min_train)),
    ])  # fmt: skip


def _items(splits: Splits, config: SplitsConfig) -> ExpectedTable:
    frame = splits.catalog.items.fillna("")  # the length checks would skip nulls
    return ExpectedTable("items", frame, [
        ("item_schema", "the columns of the catalog, in order",
         gxe.ExpectTableColumnsToMatchOrderedList(column_list=COLUMNS)),
        ("enough_items", f"at least {config.min_items} items (splits.min_items)",
         gxe.ExpectTableRowCountToBeBetween(min_value=config.min_items)),
        ("item_ids_unique", "one row an item", gxe.ExpectColumnValuesToBeUnique(column="item_id")),
        ("titles_present", "every item has a title or a placeholder",
         gxe.ExpectColumnValueLengthsToBeBetween(column="title", min_value=1)),
        ("descriptions_present", "every item has a description or a placeholder",
         gxe.ExpectColumnValueLengthsToBeBetween(column="description", min_value=1)),
    ])  # fmt: skip


def _interactions(splits: Splits) -> ExpectedTable:
    sequences = splits.sequences
    elapsed = np.diff(sequences.timestamps, prepend=sequences.timestamps[:1])
    elapsed[sequences.offsets[:-1]] = 0
    frame = pd.DataFrame(
        {
            "user_index": sequences.row_indices,
            "item_index": sequences.items,
            "timestamp": sequences.timestamps,
            "time_since_previous": elapsed,
        }
    )
    return ExpectedTable("interactions", frame, [
        ("known_users", "no unknown user", _between("user_index", 0, splits.num_users - 1)),
        ("known_items", "no unknown item", _between("item_index", 1, splits.num_items)),
        ("order_in_time", "a user's purchases are in time order",
         _between("time_since_previous", 0)),
        ("pairs_unique", "a user has each item at most once",
         gxe.ExpectCompoundColumnsToBeUnique(column_list=["user_index", "item_index"])),
    ])  # fmt: skip


def _targets(part: str, splits: Splits, targets: Targets, config: SplitsConfig) -> ExpectedTable:
    """Targets come after all training purchases; test targets also after the valid targets."""
    num_known = splits.train_lengths.copy()
    if part == "test":
        valid = splits.targets["valid"]
        np.maximum.at(num_known, valid.users, valid.positions + 1)
    frame = pd.DataFrame(
        {
            "user_index": targets.users,
            "position": targets.positions,
            "after_known": targets.positions - num_known[targets.users],
        }
    )
    expectations: list[Expectation] = [
        (f"{part}_present", f"at least one {part} target; {TARGETS_NEED[config.split]}",
         gxe.ExpectTableRowCountToBeBetween(min_value=1)),
        (f"{part}_after_known", f"{part} targets come after all earlier parts",
         _between("after_known", 0)),
    ]  # fmt: skip
    if not (config.split == "global_temporal" and config.temporal_target == "successive"):
        expectations.append((f"one_{part}_target", f"one {part} target a user",
                             gxe.ExpectColumnValuesToBeUnique(column="user_index")))  # fmt: skip
    return ExpectedTable(f"{part}_targets", frame, expectations)


def _candidates(
    name: str, splits: Splits, targets: Targets, candidates: Candidates
) -> ExpectedTable:
    users, positions = targets.users[candidates.rows], targets.positions[candidates.rows]
    expected_targets = splits.sequences.items[splits.sequences.offsets[users] + positions]
    ordered = np.sort(candidates.items, axis=1)
    frame = pd.DataFrame(
        {
            "distinct": 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1),
            "bought": _num_bought(splits.sequences, users, candidates.items),
            "target_in_place": candidates.targets == expected_targets,
        }
    )
    width = candidates.items.shape[1]
    return ExpectedTable(f"candidates_{name}", frame, [
        (f"{name}_distinct", f"{width} different candidates", _between("distinct", width, width)),
        (f"{name}_holds_target", "the target is in its column",
         gxe.ExpectColumnValuesToBeInSet(column="target_in_place", value_set=[True])),
        (f"{name}_unseen", "no candidate but the target was ever bought by the user",
         _between("bought", 1, 1)),
    ])  # fmt: skip


def _num_bought(sequences: Sequences, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """How many of each row's items its user ever bought."""
    num_items = int(max(items.max(initial=0), sequences.items.max()))
    bought = np.sort(pair_keys(sequences, num_items))
    return np.asarray(contains(bought, users[:, None] * (num_items + 1) + items).sum(axis=1))


def _between(column: str, low: int, high: int | None = None) -> Any:
    return gxe.ExpectColumnValuesToBeBetween(column=column, min_value=low, max_value=high)


def _run(tables: list[ExpectedTable], docs: Path, run_time: datetime) -> list[dict[str, Any]]:
    """Validate all tables in a temporary context and copy its Data Docs to `docs`; returns one result per expectation.

    `run_time` is the time of the newest purchase, so that the same data always give the same pages."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Great Expectations warns about its own dependencies
        context = gx.get_context(mode="file", project_root_dir=folder)
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_pandas("splits")
        results = [row for table in tables for row in _validate(context, source, table, run_time)]
        context.build_data_docs()
        built = next(Path(folder).rglob("local_site/index.html")).parent
        with atomic_directory(docs) as staging:
            shutil.copytree(built, staging, dirs_exist_ok=True)
            for page in sorted(staging.rglob("*.html")):
                html = _reproducible(page.read_text(encoding="utf-8"), run_time)
                page.write_text(html, encoding="utf-8")
    return results


def _reproducible(html: str, run_time: datetime) -> str:
    """The page with one date, numbered instead of random ids, and no logo from a tracking server."""
    ids: dict[str, str] = {}
    html = TRACKING.sub('src="data:,"', html)
    html = TIMESTAMP.sub(f"{run_time:%Y%m%dT%H%M%S.%fZ}", html)
    return UUID.sub(lambda match: ids.setdefault(match[0], f"id-{len(ids)}"), html)


def _validate(
    context: Any, source: Any, table: ExpectedTable, run_time: datetime
) -> list[dict[str, Any]]:
    asset = source.add_dataframe_asset(table.name)
    batch = asset.add_batch_definition_whole_dataframe("all")
    suite = context.suites.add(gx.ExpectationSuite(name=table.name))
    for name, description, expectation in table.expectations:
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
    run_id = RunIdentifier(run_name=table.name, run_time=run_time)
    outcome = checkpoint.run(batch_parameters={"dataframe": table.frame}, run_id=run_id)
    (validated,) = outcome.run_results.values()
    return [_row(result) for result in validated.results]


def _row(result: Any) -> dict[str, Any]:
    details = result.result or {}
    unexpected = details.get("unexpected_count")
    if "observed_value" in details:
        observed = str(details["observed_value"])
    else:
        observed = f"{unexpected} of {details.get('element_count')} rows fail"
    return {
        "name": result.expectation_config.meta["name"],
        "description": result.expectation_config.meta["description"],
        "success": bool(result.success),
        "observed": observed,
        "unexpected": int(unexpected or 0),
        "examples": [str(value) for value in details.get("partial_unexpected_list", [])[:3]],
    }
