"""Which users and items stay (SPEC 1): k-core and the user sample, as one Ibis program."""

import random
from dataclasses import dataclass
from typing import Literal

import ibis

from llmsrec.config import Count, Natural, Share
from llmsrec.data.interactions import Interactions
from llmsrec.errors import DataError

TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class SplitsConfig:
    split: Literal["loo", "gts"]
    kcore: Literal["iterative", "single_pass"]
    user_threshold: Count
    item_threshold: Count
    sample_rate: Share
    seed: int
    gts_share: float
    gts_target: Literal["last", "first", "successive"]
    negatives: Count
    generation_negatives: Natural
    max_users: Count | None
    min_users: Natural
    min_items: Natural

    def __post_init__(self) -> None:
        if self.sample_rate == 0:
            raise ValueError("sample_rate of 0 keeps nobody")
        if not 0 < self.gts_share < 0.5:
            raise ValueError("gts_share must lie in (0, 0.5): test and valid take one each")
        if self.split == "gts" and self.kcore == "single_pass":
            raise ValueError(
                "kcore: single_pass counts leave-one-out training items; use iterative with gts"
            )


def kept_rows(interactions: Interactions, config: SplitsConfig) -> ibis.Table:
    """The rows that stay, with `part` (0 train, 1 valid, 2 test; leave-one-out) and `seen`: the place at
    which the user first appears, reading train, then valid, then test."""
    rows = interactions.rows
    if config.kcore == "single_pass":
        rows = _first_seen(leave_one_out(rows))
        return _single_pass(_sampled(rows, config), config).cache()
    rows = _sampled(_first_seen(rows.mutate(part=ibis.coalesce(ibis._.part, 0))), config)
    rows = iterative_core(rows, config.user_threshold, config.item_threshold)
    return leave_one_out(rows.mutate(part=ibis.null("int64"))).cache()


def leave_one_out(rows: ibis.Table) -> ibis.Table:
    """The last purchase tests, the one before validates, the rest trains; a ready split stays as it is."""
    newest = ibis.row_number().over(group_by="user_id", order_by=ibis.desc("position"))
    part = ibis.cases((newest == 0, TEST), (newest == 1, VALID), else_=TRAIN)
    return rows.mutate(part=ibis.coalesce(rows.part, part.cast("int64")))


def iterative_core(rows: ibis.Table, user_threshold: int, item_threshold: int) -> ibis.Table:
    """The true k-core: drop what is too rare until nothing is."""
    size = _count(rows)
    while True:
        for column, threshold in (("item_id", item_threshold), ("user_id", user_threshold)):
            rows = _at_least(rows, column, threshold).cache()
        left = _count(rows)
        if left == 0:
            raise DataError(
                f"no interaction survives user_threshold {user_threshold} and item_threshold "
                f"{item_threshold}: lower them in params.yaml (splits)"
            )
        if left == size:
            return rows
        size = left


def _single_pass(rows: ibis.Table, config: SplitsConfig) -> ibis.Table:
    """The released code's recipe: count once; a user needs enough purchases, and enough training ones that survive."""
    total = rows.count().over(group_by="user_id")
    survivors = _at_least(rows.mutate(total=total), "item_id", config.item_threshold)
    train = (survivors.part == TRAIN).cast("int64").sum().over(group_by="user_id")
    counted = survivors.mutate(train=train)
    enough = (counted.total >= config.user_threshold) & (counted.train >= config.user_threshold)
    return counted.filter(enough).drop("total", "train")


def _at_least(rows: ibis.Table, column: str, threshold: int) -> ibis.Table:
    return (
        rows.mutate(num=rows.count().over(group_by=column))
        .filter(ibis._.num >= threshold)
        .drop("num")
    )


def _first_seen(rows: ibis.Table) -> ibis.Table:
    order = ibis.row_number().over(order_by=["part", "source_order"])
    numbered = rows.mutate(order=order)
    return numbered.mutate(seen=numbered.order.min().over(group_by="user_id")).drop("order")


def _sampled(rows: ibis.Table, config: SplitsConfig) -> ibis.Table:
    """floor(users * rate) users, drawn as the released code draws them."""
    if config.sample_rate == 1.0:
        return rows
    users = (
        rows.select("user_id", "seen").distinct().order_by("seen").user_id.to_pyarrow().to_pylist()
    )
    num_chosen = int(len(users) * config.sample_rate)
    if num_chosen == 0:
        raise DataError(
            f"sample_rate {config.sample_rate} of {len(users)} users is none: raise it in "
            "params.yaml (splits)"
        )
    chosen = random.Random(config.seed).sample(users, num_chosen)
    return rows.semi_join(ibis.memtable({"user_id": chosen}), "user_id").cache()


def _count(rows: ibis.Table) -> int:
    return int(rows.count().to_pyarrow().as_py())
