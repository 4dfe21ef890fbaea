"""Which users and items stay (SPEC 1): k-core and the user sample, as one Ibis program."""

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
PART = 2**48  # more than any source_order
COLUMNS = ["user_id", "item_id", "timestamp", "part", "position", "seen"]


@dataclass(frozen=True)
class SplitsConfig:
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
            raise ValueError("sample_rate of 0 keeps nobody")
        if not 0 < self.temporal_share < 0.5:
            raise ValueError("temporal_share must lie in (0, 0.5): test and valid take one each")
        if self.split == "global_temporal" and self.kcore == "single_pass":
            raise ValueError(
                "kcore: single_pass counts leave-one-out training items; use iterative with global_temporal"
            )


def kept_rows(interactions: Interactions, config: SplitsConfig) -> ibis.Table:
    """The rows that stay, with `part` (0 train, 1 valid, 2 test; leave-one-out) and `seen`, which orders users by
    their first appearance, reading train, then valid, then test."""
    rows = interactions.rows
    if config.kcore == "single_pass":
        rows = leave_one_out(rows)
        core = _single_pass(_sampled(rows, config), config)
    else:
        rows = rows.mutate(part=ibis.coalesce(rows.part, 0))
        core = iterative_core(_sampled(rows, config), config.user_threshold, config.item_threshold)
        core = leave_one_out(core.mutate(part=ibis.null("int64")))
    return materialize(core.join(_first_seen(rows), "user_id").select(COLUMNS))


def leave_one_out(rows: ibis.Table) -> ibis.Table:
    """The last purchase tests, the one before validates, the rest trains; a ready split stays as it is."""
    newest = ibis.row_number().over(group_by="user_id", order_by=ibis.desc("position"))
    part = ibis.cases((newest == 0, TEST), (newest == 1, VALID), else_=TRAIN)
    return rows.mutate(part=ibis.coalesce(rows.part, part.cast("int64")))


def iterative_core(rows: ibis.Table, user_threshold: int, item_threshold: int) -> ibis.Table:
    """The true k-core: drop what is too rare until nothing is. The rounds carry pairs alone, and read `rows` twice."""
    pairs, before, size = rows.select("user_id", "item_id"), None, None
    while True:
        for column, threshold in (("item_id", item_threshold), ("user_id", user_threshold)):
            pairs = pairs.semi_join(_frequent(pairs, column, threshold), column)
        before = pairs = materialize(pairs, instead=before)
        left = _count(pairs)
        if left == 0:
            raise DataError(
                f"no interaction survives user_threshold {user_threshold} and item_threshold "
                f"{item_threshold}: lower them in params.yaml (splits)"
            )
        if left == size:  # a purchase stays if its user and its item do
            for column in ("item_id", "user_id"):
                rows = rows.semi_join(pairs.select(column).distinct(), column)
            return rows
        size = left


def _single_pass(rows: ibis.Table, config: SplitsConfig) -> ibis.Table:
    """The released code's variant: count once; a user needs enough purchases, and enough training ones that survive."""
    total = rows.count().over(group_by="user_id")
    survivors = rows.mutate(total=total).semi_join(
        _frequent(rows, "item_id", config.item_threshold), "item_id"
    )
    train = (survivors.part == TRAIN).cast("int64").sum().over(group_by="user_id")
    counted = survivors.mutate(train=train)
    enough = (counted.total >= config.user_threshold) & (counted.train >= config.user_threshold)
    return counted.filter(enough).drop("total", "train")


def _frequent(rows: ibis.Table, column: str, threshold: int) -> ibis.Table:
    counted = rows.group_by(column).aggregate(num=rows.count())
    return counted.filter(counted.num >= threshold).select(column)


def _first_seen(rows: ibis.Table) -> ibis.Table:
    """One number for part and source order: to number all rows would take them to one task."""
    place = rows.part * PART + rows.source_order
    return rows.group_by("user_id").aggregate(seen=place.min())


def _sampled(rows: ibis.Table, config: SplitsConfig) -> ibis.Table:
    """floor(users * rate) users, drawn as the released code draws them: from the list in order of appearance."""
    if config.sample_rate == 1.0:
        return rows
    users = _first_seen(rows)
    seen = np.sort(to_arrow(users.select("seen"))["seen"].to_numpy())
    num_chosen = int(len(seen) * config.sample_rate)
    if num_chosen == 0:
        raise DataError(
            f"sample_rate {config.sample_rate} of {len(seen)} users is none: raise it in "
            "params.yaml (splits)"
        )
    places = random.Random(config.seed).sample(range(len(seen)), num_chosen)
    drawn = pa.table({"seen": seen[places]})
    chosen = users.semi_join(register(drawn, rows.get_backend()), "seen")
    return materialize(rows.semi_join(chosen, "user_id"))


def _count(rows: ibis.Table) -> int:
    return int(to_arrow(rows.aggregate(num=rows.count()))["num"][0].as_py())
