"""Interactions: one row per user and item, in the order of each user's purchases (specification 1).

The relational part is one Ibis program, on DuckDB or Spark (relational/sql_engine.py).
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmsrec.core.config import Share
from llmsrec.core.errors import DataError
from llmsrec.core.files import atomic_directory, atomic_write
from llmsrec.parsing.line_reader import REJECT_SCHEMA, WORKERS, ItemTexts
from llmsrec.parsing.metadata import ITEM_SCHEMA
from llmsrec.parsing.parse_cache import ParseCache
from llmsrec.parsing.raw_files import parse_file, part_of, raw_files
from llmsrec.parsing.rejects import LineCounts
from llmsrec.parsing.reviews import REVIEW_SCHEMA, DateRange
from llmsrec.relational.sql_engine import RelationalConfig, engine, to_arrow, write

DEFAULT_ENGINE = RelationalConfig("duckdb", 250, WORKERS)
PARSED_SCHEMA = pa.schema(
    [*(field for field in REVIEW_SCHEMA if field.name != "line"), ("source_order", pa.int64()), ("part", pa.int64())]
)  # fmt: skip


@dataclass(frozen=True)
class InteractionsConfig:
    """Dates in [earliest, latest) are valid; `tie_seed` orders purchases of one moment."""

    earliest: date
    latest: date
    max_reject_share: Share
    tie_seed: int

    def __post_init__(self) -> None:
        if not self.earliest < self.latest:
            raise ValueError("earliest must be before latest")


def ingest(
    raw: Path,
    out: Path,
    config: InteractionsConfig,
    *,
    rejects_file: Path,
    cache_folder: Path | None = None,
    relational: RelationalConfig = DEFAULT_ENGINE,
) -> dict[str, Any]:
    """Parse all raw files of a dataset into the folder `out`; returns counts.

    DataError if more than `max_reject_share` of a file's lines are rejected; `rejects_file` then receives them."""
    reviews, metadata = raw_files(raw)
    cache = ParseCache(cache_folder)
    with atomic_directory(out) as staging:
        texts: dict[str, ItemTexts] = {}
        lines = _parse_reviews(reviews, staging, config, cache, texts)
        item_lines, num_items = _parse_metadata(metadata, staging, config, cache, texts)
        try:
            for counts in (*lines, *item_lines):
                counts.check(config.max_reject_share)
        except DataError:
            with atomic_write(rejects_file) as file:
                names = ("rejects.parquet", "rejects_metadata.parquet")
                pq.write_table(pa.concat_tables([pq.read_table(staging / n) for n in names]), file)
            raise
        with engine(relational, staging / "spill") as connection:
            summary = _order(staging, config.tie_seed, connection)
        (staging / "parsed.parquet").unlink()
    cache.remove_unused()
    return {
        "reviews": _report(lines, summary["interactions"]),
        "metadata": _report(item_lines, num_items),
        **summary,
    }


def _report(counts: list[LineCounts], rows: int) -> dict[str, Any]:
    """The lines of all files of a kind, each a row, a duplicate or a reject."""
    reasons = sum((one.reasons for one in counts), Counter[str]())
    accepted = sum(one.accepted for one in counts)
    return {
        "files": [one.file for one in counts],
        "lines": accepted + reasons.total(),
        "rows": rows,
        "duplicates": accepted - rows,
        "rejects": reasons.total(),
        "rejects_by_reason": dict(reasons.most_common()),
    }


def _parse_reviews(
    files: list[Path],
    staging: Path,
    config: InteractionsConfig,
    cache: ParseCache,
    texts: dict[str, ItemTexts],
) -> list[LineCounts]:
    """Write all rows to parsed.parquet and all rejects to rejects.parquet; collect item texts in `texts`."""
    dates, stop, all_counts = DateRange(config.earliest, config.latest), 0, []
    with (
        pq.ParquetWriter(staging / "parsed.parquet", PARSED_SCHEMA) as rows,
        pq.ParquetWriter(staging / "rejects.parquet", REJECT_SCHEMA) as rejects,
    ):
        for file in files:
            counts = LineCounts(file.name, rejects)
            all_counts.append(counts)
            blocks = cache.blocks(file, str(dates), REVIEW_SCHEMA, partial(parse_file, file, dates))
            part = pa.scalar(part_of(file), pa.int64())
            for block in counts.count(blocks):
                for item_id, item_texts in block.texts.items():
                    texts.setdefault(item_id, item_texts)
                start, stop = stop, stop + block.rows.num_rows
                order, parts = pa.array(np.arange(start, stop)), pa.repeat(part, stop - start)
                columns = block.rows.sort_by("line").drop_columns("line").columns
                rows.write_table(pa.table([*columns, order, parts], schema=PARSED_SCHEMA))
    return all_counts


def _parse_metadata(
    files: list[Path],
    staging: Path,
    config: InteractionsConfig,
    cache: ParseCache,
    texts: dict[str, ItemTexts],
) -> tuple[list[LineCounts], int]:
    """Write items.parquet: the first line of each item, and `texts` for items without a line; also the number of the
    former."""
    dates, item_ids, all_counts = DateRange(config.earliest, config.latest), set[str](), []
    with (
        pq.ParquetWriter(staging / "items.parquet", ITEM_SCHEMA) as items,
        pq.ParquetWriter(staging / "rejects_metadata.parquet", REJECT_SCHEMA) as rejects,
    ):
        for file in files:
            counts = LineCounts(file.name, rejects)
            all_counts.append(counts)
            blocks = cache.blocks(file, "metadata", ITEM_SCHEMA, partial(parse_file, file, dates))
            for block in counts.count(blocks):
                is_first = []
                for item_id in block.rows["item_id"].to_pylist():
                    is_first.append(item_id not in item_ids)
                    item_ids.add(item_id)
                items.write_table(block.rows.filter(pa.array(is_first, pa.bool_())))
        rest = [{"item_id": key, **text} for key, text in texts.items() if key not in item_ids]
        items.write_table(pa.Table.from_pylist(rest, ITEM_SCHEMA))
    return all_counts, len(item_ids)


def order_interactions(parsed: ibis.Table, tie_seed: int) -> ibis.Table:
    """The earliest purchase of each (user, item), with its `position` in the user's history.

    Purchases of one moment are ordered by a seeded hash: sources are often sorted by item, and that order leaks."""
    occurrence = ibis.row_number().over(
        group_by=["user_id", "item_id"], order_by=["part", "timestamp", "rating", "source_order"]
    )
    earliest = parsed.mutate(occurrence=occurrence).filter(ibis._.occurrence == 0)
    pair = ibis.literal(f"{tie_seed}:") + earliest.user_id + ":" + earliest.item_id
    earliest = earliest.mutate(tie=pair.hexdigest("md5"))
    position = ibis.row_number().over(
        group_by="user_id", order_by=["part", "timestamp", "tie", "item_id"]
    )
    return earliest.mutate(position=position.cast("int64")).select(
        "user_id", "item_id", "timestamp", "rating", "source_order", "part", "position"
    )


def _order(staging: Path, tie_seed: int, connection: ibis.BaseBackend) -> dict[str, Any]:
    """Write interactions.parquet; returns its summary."""
    table = order_interactions(connection.read_parquet(staging / "parsed.parquet"), tie_seed)
    file = staging / "interactions.parquet"
    write(table.order_by(["user_id", "position"]), file)
    items = connection.read_parquet(staging / "items.parquet")
    return _summary(connection.read_parquet(file), items)


def _summary(rows: ibis.Table, items: ibis.Table) -> dict[str, Any]:
    previous = rows.timestamp.lag().over(group_by="user_id", order_by="position")
    tied = rows.mutate(tied=(rows.timestamp == previous).cast("float64"))
    (totals,) = to_arrow(
        tied.aggregate(
            interactions=tied.count(),
            users=tied.user_id.nunique(),
            items=tied.item_id.nunique(),
            tie_share=tied.tied.mean(),
            first=tied.timestamp.min(),
            last=tied.timestamp.max(),
        )
    ).to_pylist()
    undescribed = rows.select("item_id").distinct().anti_join(items, "item_id")
    (num_undescribed,) = to_arrow(undescribed.aggregate(num=undescribed.count()))["num"].to_pylist()
    return {
        "interactions": totals["interactions"],
        "users": totals["users"],
        "items": totals["items"],
        "items_without_metadata": num_undescribed,
        "tie_share": round(totals["tie_share"] or 0.0, 6),
        "first_day": _day(totals["first"]),
        "last_day": _day(totals["last"]),
    }


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
