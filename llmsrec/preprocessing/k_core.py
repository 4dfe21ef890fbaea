"""k-core filter and user sample (specification 1), as one Ibis program."""

import random
from dataclasses import dataclass
from typing import Literal

import ibis
import numpy as np
import pyarrow as pa

from llmsrec.core.config import Count, Natural, Share
from llmsrec.core.errors import DataError
from llmsrec.relational.interactions import Interactions
from llmsrec.relational.sql_engine import materialize, register, to_arrow

TRAIN, VALID, TEST = 0, 1, 2
TARGETS_NEED = {
    "leave_one_out": "users need 3 purchases, see splits.user_threshold",
    "global_temporal": "users need purchases before and after the cuts of splits.temporal_share, or leave_one_out",
}
PART_STRIDE = 2**48  # more than any source_order
COLUMNS = ["user_id", "item_id", "timestamp", "part", "position", "first_row"]


@dataclass(frozen=True)
class SplitsConfig:
    """Settings of the k-core, of the split and of the candidates."""

    split: Literal["leave_one_out", "global_temporal"]
    kcore: Literal["iterative", "single_pass"]
    user_threshold: Count
    item_threshold: Count
    sample_rate: Share
    seed: int
    temporal_share: float
    temporal_target: Literal["last", "first", "successive"]
    negatives: Count
    generation_negatives: Natural
    max_users: Count | None
    min_users: Natural
    min_items: Natural

    def __post_init__(self) -> None:
        if self.sample_rate == 0:
            raise ValueError("sample_rate must be above 0: 0 selects no user")
        if not 0 < self.temporal_share < 0.5:
            raise ValueError(
                "temporal_share must lie in (0, 0.5): valid and test each get that share"
            )
        if self.split == "global_temporal" and self.kcore == "single_pass":
            raise ValueError(
                "kcore: single_pass counts leave-one-out training items; use iterative with global_temporal"
            )


def select_interactions(interactions: Interactions, config: SplitsConfig) -> ibis.Table:
    """The rows of the k-core, with the leave-one-out `part` (0 train, 1 valid, 2 test) and `first_row`.

    `first_row` orders users by their first appearance in the files, reading train, then valid, then test."""
    rows = interactions.rows
    if config.kcore == "single_pass":
        rows = leave_one_out(rows)
        core = single_pass_core(_sample_users(rows, config), config)
    else:
        rows = rows.mutate(part=ibis.coalesce(rows.part, 0))
        core = iterative_core(
            _sample_users(rows, config), config.user_threshold, config.item_threshold
        )
        core = leave_one_out(core.mutate(part=ibis.null("int64")))
    return materialize(core.join(_first_rows(rows), "user_id").select(COLUMNS))


def leave_one_out(rows: ibis.Table) -> ibis.Table:
    """`part` from the position: the last purchase is test, the one before is valid; a ready split keeps its own."""
    newest = ibis.row_number().over(group_by="user_id", order_by=ibis.desc("position"))
    part = ibis.cases((newest == 0, TEST), (newest == 1, VALID), else_=TRAIN)
    return rows.mutate(part=ibis.coalesce(rows.part, part.cast("int64")))


def iterative_core(rows: ibis.Table, user_threshold: int, item_threshold: int) -> ibis.Table:
    """The k-core: drop items and users below their threshold until none is left below it; DataError if it is empty.

    The rounds work on (user, item) pairs only, so `rows` is read twice."""
    pairs, previous, size = rows.select("user_id", "item_id"), None, None
    while True:
        for column, threshold in (("item_id", item_threshold), ("user_id", user_threshold)):
            pairs = pairs.semi_join(_frequent(pairs, column, threshold), column)
        previous = pairs = materialize(pairs, replaces=previous)
        remaining = _count(pairs)
        if remaining == 0:
            raise DataError(
                f"no interaction survives splits.user_threshold {user_threshold} and splits.item_threshold "
                f"{item_threshold}: a user has at most {_largest(rows, 'user_id')} items and an item "
                f"{_largest(rows, 'item_id')} users. Lower them in params.yaml, or provide more data; a user needs 3 "
                "items (train, valid, test)"
            )
        if remaining == size:  # then the pairs are those whose user and item both remain
            for column in ("item_id", "user_id"):
                rows = rows.semi_join(pairs.select(column).distinct(), column)
            return rows
        size = remaining


def single_pass_core(rows: ibis.Table, config: SplitsConfig) -> ibis.Table:
    """The released code's variant: count once; a user needs enough purchases, and enough training purchases of frequent
    items."""
    total = rows.count().over(group_by="user_id")
    frequent = rows.mutate(total=total).semi_join(
        _frequent(rows, "item_id", config.item_threshold), "item_id"
    )
    train = (frequent.part == TRAIN).cast("int64").sum().over(group_by="user_id")
    counted = frequent.mutate(train=train)
    enough = (counted.total >= config.user_threshold) & (counted.train >= config.user_threshold)
    return counted.filter(enough).drop("total", "train")


def _frequent(rows: ibis.Table, column: str, threshold: int) -> ibis.Table:
    """The values of a column that occur at least `threshold` times."""
    counted = rows.group_by(column).aggregate(num=rows.count())
    return counted.filter(counted.num >= threshold).select(column)


def _largest(rows: ibis.Table, column: str) -> int:
    """How often the most frequent value of a column occurs."""
    counted = rows.group_by(column).aggregate(num=rows.count())
    return int(to_arrow(counted.aggregate(num=counted.num.max()))["num"][0].as_py() or 0)


def _first_rows(rows: ibis.Table) -> ibis.Table:
    """Each user's smallest (part, source_order), as one number; numbering all rows would need a single Spark task."""
    order = rows.part * PART_STRIDE + rows.source_order
    return rows.group_by("user_id").aggregate(first_row=order.min())


def _sample_users(rows: ibis.Table, config: SplitsConfig) -> ibis.Table:
    """floor(users * rate) users, drawn as in the released code: from the list in order of appearance."""
    if config.sample_rate == 1.0:
        return rows
    users = _first_rows(rows)
    first_rows = np.sort(to_arrow(users.select("first_row"))["first_row"].to_numpy())
    num_sampled = int(len(first_rows) * config.sample_rate)
    if num_sampled == 0:
        raise DataError(
            f"sample_rate {config.sample_rate} of {len(first_rows)} users is none: raise it in "
            "params.yaml (splits)"
        )
    indices = random.Random(config.seed).sample(range(len(first_rows)), num_sampled)
    drawn = pa.table({"first_row": first_rows[indices]})
    sampled = users.semi_join(register(drawn, rows.get_backend()), "first_row")
    return materialize(rows.semi_join(sampled, "user_id"))


def _count(rows: ibis.Table) -> int:
    return int(to_arrow(rows.aggregate(num=rows.count()))["num"][0].as_py())
