"""Interactions -> Splits: leave-one-out, or one cut in time (SPEC 1, 9)."""

from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int

from llmsrec.core.errors import DataError
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Candidates, Part, Splits, Targets
from llmsrec.preprocessing.candidates import draw_candidates, evaluated_rows, title_labels
from llmsrec.preprocessing.k_core import TEST, TRAIN, VALID, SplitsConfig, kept_rows
from llmsrec.relational.interactions import Interactions
from llmsrec.relational.sql_engine import batches, to_arrow

PLACEHOLDERS = {
    "title": "Empty title",
    "description": "Empty description",
    "brand": "",
    "category": "",
}


def split(interactions: Interactions, config: SplitsConfig) -> Splits:
    rows = kept_rows(interactions, config)
    catalog = _catalog(interactions, rows)
    user_ids, sequences, parts = _histories(rows, catalog)
    if config.split == "global_temporal":
        parts = periods(sequences.timestamps, config.temporal_share)
    targets: dict[Part, Targets] = {
        "valid": _targets(parts == VALID, sequences, config),
        "test": _targets(parts == TEST, sequences, config),
    }
    trains = (parts == TRAIN).astype(np.int64)
    return Splits(
        catalog,
        user_ids,
        sequences,
        np.add.reduceat(trains, sequences.offsets[:-1]),
        targets,
        _candidates(sequences, targets, catalog, config, mode=0),
        _candidates(sequences, targets, catalog, config, mode=1),
    )


def _histories(
    rows: ibis.Table, catalog: Catalog
) -> tuple[list[str], Sequences, Int[np.ndarray, "n"]]:
    """User ids by first appearance, their purchases, and the part of each: numbers alone leave the engine, in order."""
    users = rows.group_by("user_id").aggregate(seen=rows.seen.min(), num=rows.count())
    ordered = to_arrow(users.order_by("seen").select("user_id", "num"))
    offsets = np.concatenate([[0], np.cumsum(ordered["num"].to_numpy())]).astype(np.int64)
    known = pa.array(catalog.items["item_id"], pa.string())
    columns: list[list[np.ndarray]] = [[], [], []]
    chosen = rows.order_by(["seen", "position"]).select("item_id", "timestamp", "part")
    for batch in batches(chosen):
        columns[0].append(pc.index_in(batch["item_id"], known).to_numpy().astype(np.int64) + 1)
        columns[1].append(batch["timestamp"].to_numpy())
        columns[2].append(batch["part"].to_numpy().astype(np.int8))
    items, timestamps, parts = (np.concatenate(column) for column in columns)
    return ordered["user_id"].to_pylist(), Sequences(offsets, items, timestamps), parts


def periods(timestamps: Int[np.ndarray, "n"], share: float) -> Int[np.ndarray, "n"]:
    """Train, valid or test by time alone; purchases at the moment of a cut fall after it."""
    ordered = np.sort(timestamps)
    valid_cut, test_cut = (ordered[int(len(ordered) * (1 - count * share))] for count in (2, 1))
    return (timestamps >= valid_cut).astype(np.int64) + (timestamps >= test_cut)


def statistics(splits: Splits) -> dict[str, Any]:
    """SPEC E16."""
    sequences, lengths = splits.sequences, splits.sequences.lengths
    tied = np.diff(sequences.timestamps) == 0
    within = np.ones(len(sequences.timestamps) - 1, dtype=bool)
    within[sequences.offsets[1:-1] - 1] = False
    without = {
        f"users_without_{part}": round(1 - len(np.unique(targets.users)) / splits.num_users, 6)
        for part, targets in splits.targets.items()
    }
    return {
        "users": splits.num_users,
        "items": splits.num_items,
        "interactions": len(sequences.items),
        "train_interactions": int(splits.train_lengths.sum()),
        "mean_length": round(float(lengths.mean()), 3),
        "median_length": float(np.median(lengths)),
        "max_length": int(lengths.max()),
        "density": round(len(sequences.items) / (splits.num_users * splits.num_items), 8),
        "tie_share": round(float(tied[within].mean()), 6),
        **without,
        "valid_evaluated": len(splits.candidates["valid"]),
        "test_evaluated": len(splits.candidates["test"]),
    }


def _catalog(interactions: Interactions, rows: ibis.Table) -> Catalog:
    """The items that stayed, by id, with placeholders for what no metadata tells."""
    ids = to_arrow(rows.select("item_id").distinct())["item_id"].to_pandas()
    sold = pd.DataFrame({"item_id": np.sort(ids)})
    if sold.empty:
        raise DataError("no user survives the thresholds of params.yaml (splits): lower them")
    described = interactions.items.semi_join(rows, "item_id")
    items = sold.merge(to_arrow(described).to_pandas(), on="item_id", how="left", validate="1:1")
    for column, placeholder in PLACEHOLDERS.items():
        items[column] = items[column].fillna(placeholder)
    items["item_index"] = np.arange(1, len(items) + 1)
    return Catalog(items[COLUMNS])


def _targets(chosen: np.ndarray, sequences: Sequences, config: SplitsConfig) -> Targets:
    """The held-out purchases with something before them; of several of a user, those that `temporal_target` names."""
    rows = np.flatnonzero(chosen)
    users = np.searchsorted(sequences.offsets, rows, side="right") - 1
    positions = rows - sequences.offsets[users]
    wanted = positions > 0
    if config.split == "global_temporal" and config.temporal_target != "successive":
        later = pd.Series(users[wanted])
        wanted[wanted] = ~later.duplicated(keep=config.temporal_target).to_numpy()
    return Targets(users[wanted], positions[wanted])


def _candidates(
    sequences: Sequences,
    targets: dict[Part, Targets],
    catalog: Catalog,
    config: SplitsConfig,
    mode: int,
) -> dict[Part, Candidates]:
    """Retrieval (mode 0) and generation (mode 1) evaluate the same users."""
    labels = title_labels(catalog) if mode else np.arange(catalog.num_items + 1)
    num_negatives = config.generation_negatives if mode else config.negatives
    drawn: dict[Part, Candidates] = {}
    for number, (part, held_out) in enumerate(targets.items()):
        sample = np.random.default_rng((config.seed, number))
        rows = evaluated_rows(len(held_out), config.max_users, sample)
        generator = np.random.default_rng((config.seed, number, mode))
        drawn[part] = draw_candidates(sequences, held_out, rows, num_negatives, labels, generator)
    return drawn
