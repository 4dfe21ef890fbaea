"""Interactions -> Splits: leave-one-out, or a global temporal split (specification 1 and 9)."""

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
from llmsrec.preprocessing.candidates import (
    draw_candidates,
    most_negatives,
    sample_targets,
    title_labels,
)
from llmsrec.preprocessing.k_core import TEST, TRAIN, VALID, SplitsConfig, select_interactions
from llmsrec.relational.interactions import Interactions
from llmsrec.relational.sql_engine import batches, to_arrow

PLACEHOLDERS = {
    "title": "Empty title",
    "description": "Empty description",
    "brand": "",
    "category": "",
}


def split(interactions: Interactions, config: SplitsConfig) -> Splits:
    """The splits of a dataset with their candidates; DataError if no user or too few items remain."""
    rows = select_interactions(interactions, config)
    catalog = _catalog(interactions, rows)
    user_ids, sequences, parts = _histories(rows, catalog)
    if config.split == "global_temporal":
        parts = temporal_parts(sequences.timestamps, config.temporal_share)
    targets: dict[Part, Targets] = {
        "valid": _targets(parts == VALID, sequences, config),
        "test": _targets(parts == TEST, sequences, config),
    }
    is_train = (parts == TRAIN).astype(np.int64)
    retrieval = _candidates(
        sequences, targets, config, np.arange(catalog.num_items + 1), config.negatives, stream=0
    )
    titles = title_labels(catalog)
    different = most_negatives(sequences, titles, config.generation_negatives)
    generation = _candidates(sequences, targets, config, titles, different, stream=1)
    return Splits(
        catalog,
        user_ids,
        sequences,
        np.add.reduceat(is_train, sequences.offsets[:-1]),
        targets,
        retrieval,
        generation,
    )


def _histories(
    rows: ibis.Table, catalog: Catalog
) -> tuple[list[str], Sequences, Int[np.ndarray, "n"]]:
    """User ids by first appearance, their purchases, and the part of each purchase."""
    users = rows.group_by("user_id").aggregate(first_row=rows.first_row.min(), num=rows.count())
    ordered = to_arrow(users.order_by("first_row").select("user_id", "num"))
    offsets = np.concatenate([[0], np.cumsum(ordered["num"].to_numpy())]).astype(np.int64)
    item_ids = pa.array(catalog.items["item_id"], pa.string())
    columns: list[list[np.ndarray]] = [[], [], []]
    purchases = rows.order_by(["first_row", "position"]).select("item_id", "timestamp", "part")
    for batch in batches(purchases):
        columns[0].append(pc.index_in(batch["item_id"], item_ids).to_numpy().astype(np.int64) + 1)
        columns[1].append(batch["timestamp"].to_numpy())
        columns[2].append(batch["part"].to_numpy().astype(np.int8))
    items, timestamps, parts = (np.concatenate(column) for column in columns)
    return ordered["user_id"].to_pylist(), Sequences(offsets, items, timestamps), parts


def temporal_parts(timestamps: Int[np.ndarray, "n"], share: float) -> Int[np.ndarray, "n"]:
    """The part of each purchase by time; purchases at the moment of a cut belong to the later part."""
    ordered = np.sort(timestamps)
    valid_cut, test_cut = (ordered[int(len(ordered) * (1 - count * share))] for count in (2, 1))
    return (timestamps >= valid_cut).astype(np.int64) + (timestamps >= test_cut)


def split_statistics(splits: Splits) -> dict[str, Any]:
    """Sizes, lengths, density and ties of the splits (specification E16)."""
    sequences, lengths = splits.sequences, splits.sequences.lengths
    tied = np.diff(sequences.timestamps) == 0
    same_user = np.ones(len(sequences.timestamps) - 1, dtype=bool)
    same_user[sequences.offsets[1:-1] - 1] = False
    without_target = {
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
        "tie_share": round(float(tied[same_user].mean()), 6),
        **without_target,
        "valid_evaluated": len(splits.candidates["valid"]),
        "test_evaluated": len(splits.candidates["test"]),
    }


def _catalog(interactions: Interactions, rows: ibis.Table) -> Catalog:
    """The items of these rows, sorted by id, with placeholders for missing texts."""
    ids = to_arrow(rows.select("item_id").distinct())["item_id"].to_pandas()
    items = pd.DataFrame({"item_id": np.sort(ids)})
    if items.empty:
        raise DataError(
            "no user survives splits.user_threshold and splits.item_threshold of params.yaml: lower them; with kcore: "
            "single_pass the first counts training purchases, and each user has two more"
        )
    texts = to_arrow(interactions.items.semi_join(rows, "item_id")).to_pandas()
    items = items.merge(texts, on="item_id", how="left", validate="1:1")
    for column, placeholder in PLACEHOLDERS.items():
        items[column] = items[column].fillna(placeholder)
    items["item_index"] = np.arange(1, len(items) + 1)
    return Catalog(items[COLUMNS])


def _targets(held_out: np.ndarray, sequences: Sequences, config: SplitsConfig) -> Targets:
    """The held-out purchases that have a history; `temporal_target` selects one per user unless successive."""
    rows = np.flatnonzero(held_out)
    users = sequences.row_indices[rows]
    positions = rows - sequences.offsets[users]
    selected = positions > 0
    if config.split == "global_temporal" and config.temporal_target != "successive":
        duplicated = pd.Series(users[selected]).duplicated(keep=config.temporal_target)
        selected[selected] = ~duplicated.to_numpy()
    return Targets(users[selected], positions[selected])


def _candidates(
    sequences: Sequences,
    targets: dict[Part, Targets],
    config: SplitsConfig,
    labels: Int[np.ndarray, "indices"],
    num_negatives: int,
    stream: int,
) -> dict[Part, Candidates]:
    """Candidates of each part; retrieval and generation evaluate the same users, and draw from separate streams."""
    candidates: dict[Part, Candidates] = {}
    for number, (part, held_out) in enumerate(targets.items()):
        sampler = np.random.default_rng((config.seed, number))
        rows = sample_targets(len(held_out), config.max_users, sampler)
        generator = np.random.default_rng((config.seed, number, stream))
        candidates[part] = draw_candidates(
            sequences, held_out, rows, num_negatives, labels, generator
        )
    return candidates
