"""Interactions: one row per user and item, in the order of each user's purchases (specification 1).

The relational part is one Ibis program, on DuckDB or Spark (relational/sql_engine.py).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from llmsrec.core.config import Share
from llmsrec.core.errors import DataError
from llmsrec.core.files import atomic_directory, atomic_write
from llmsrec.parsing.csv_reviews import parse_file
from llmsrec.parsing.line_reader import REJECT_SCHEMA, ItemTexts, ParsedBlock
from llmsrec.parsing.metadata import ITEM_SCHEMA, parse_metadata
from llmsrec.parsing.parse_cache import ParseCache
from llmsrec.parsing.raw_files import part_of, raw_files
from llmsrec.parsing.reviews import REVIEW_SCHEMA, WORKERS, DateRange
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

    DataError if more than `max_reject_share` of the lines are rejected; `rejects_file` then receives them."""
    reviews, metadata = raw_files(raw)
    cache = ParseCache(cache_folder)
    with atomic_directory(out) as staging:
        texts: dict[str, ItemTexts] = {}
        counts = {
            "reviews": _parse_reviews(reviews, staging, config, cache, texts),
            "metadata": _parse_metadata(metadata, staging, cache, texts),
        }
        try:
            _check_rejects(counts["reviews"], staging / "rejects.parquet", config.max_reject_share)
        except DataError:
            with atomic_write(rejects_file) as copy:
                copy.write_bytes((staging / "rejects.parquet").read_bytes())
            raise
        with engine(relational, staging / "spill") as connection:
            summary = _order(staging, config.tie_seed, connection)
        (staging / "parsed.parquet").unlink()
    cache.remove_unused()
    lines = counts["reviews"]
    lines["rows"] = summary["interactions"]
    lines["duplicates"] = lines.pop("accepted") - lines["rows"]
    assert lines["lines"] == lines["rows"] + lines["duplicates"] + lines["rejects"]
    return {**counts, **summary}


class LineCounts:
    """Counts the lines of parsed blocks and writes their rejects."""

    def __init__(self, rejects: pq.ParquetWriter) -> None:
        self.rejects = rejects
        self.lines = self.accepted = 0
        self.reasons: Counter[str] = Counter()

    def count(self, blocks: Iterator[ParsedBlock]) -> Iterator[ParsedBlock]:
        """Yield the blocks unchanged."""
        for block in blocks:
            self.lines += block.num_lines - block.num_blank
            self.accepted += block.rows.num_rows
            self.rejects.write_table(block.rejects)
            for pair in pc.value_counts(block.rejects["reason"]).to_pylist():
                self.reasons[pair["values"]] += pair["counts"]
            yield block

    def report(self, files: list[Path]) -> dict[str, Any]:
        return {
            "files": [file.name for file in files],
            "lines": self.lines,
            "accepted": self.accepted,
            "rejects": self.reasons.total(),
            "rejects_by_reason": dict(self.reasons.most_common()),
        }


def _parse_reviews(
    files: list[Path],
    staging: Path,
    config: InteractionsConfig,
    cache: ParseCache,
    texts: dict[str, ItemTexts],
) -> dict[str, Any]:
    """Write all rows to parsed.parquet and all rejects to rejects.parquet; collect item texts in `texts`."""
    dates = DateRange(config.earliest, config.latest)
    with (
        pq.ParquetWriter(staging / "parsed.parquet", PARSED_SCHEMA) as rows,
        pq.ParquetWriter(staging / "rejects.parquet", REJECT_SCHEMA) as rejects,
    ):
        counts = LineCounts(rejects)
        for file in files:
            blocks = cache.blocks(file, str(dates), REVIEW_SCHEMA, partial(parse_file, file, dates))
            part = pa.scalar(part_of(file), pa.int64())
            for block in counts.count(blocks):
                for item_id, item_texts in block.texts.items():
                    texts.setdefault(item_id, item_texts)
                stop = counts.accepted
                order = pa.array(np.arange(stop - block.rows.num_rows, stop))
                columns = block.rows.sort_by("line").drop_columns("line").columns
                parts = pa.repeat(part, len(order))
                rows.write_table(pa.table([*columns, order, parts], schema=PARSED_SCHEMA))
    return counts.report(files)


def _parse_metadata(
    files: list[Path], staging: Path, cache: ParseCache, texts: dict[str, ItemTexts]
) -> dict[str, Any]:
    """Write items.parquet: the first line of each item, and `texts` for items without a line."""
    item_ids: set[str] = set()
    with (
        pq.ParquetWriter(staging / "items.parquet", ITEM_SCHEMA) as items,
        pq.ParquetWriter(staging / "rejects_metadata.parquet", REJECT_SCHEMA) as rejects,
    ):
        counts = LineCounts(rejects)
        for file in files:
            blocks = cache.blocks(file, "metadata", ITEM_SCHEMA, partial(parse_metadata, file))
            for block in counts.count(blocks):
                is_first = []
                for item_id in block.rows["item_id"].to_pylist():
                    is_first.append(item_id not in item_ids)
                    item_ids.add(item_id)
                items.write_table(block.rows.filter(pa.array(is_first, pa.bool_())))
        rest = [{"item_id": key, **text} for key, text in texts.items() if key not in item_ids]
        items.write_table(pa.Table.from_pylist(rest, ITEM_SCHEMA))
    report = counts.report(files)
    report["rows"] = len(item_ids)
    report["duplicates"] = report.pop("accepted") - len(item_ids)
    return report


def _check_rejects(counts: dict[str, Any], rejects: Path, max_share: float) -> None:
    """DataError if the input is so malformed that a model should not be trained on the rest of it."""
    if counts["accepted"] == 0:
        raise DataError(f"none of the {counts['lines']} lines of {counts['files']} is a review")
    share = counts["rejects"] / counts["lines"]
    if share > max_share:
        first = pq.read_table(rejects).slice(0, 1).to_pylist()[0]
        reason = next(iter(counts["rejects_by_reason"]))
        raise DataError(
            f"{counts['rejects']:,} of {counts['lines']:,} lines are malformed ({share:.1%}; allowed "
            f"{max_share:.1%}), most often '{reason}', first {first['file']} line {first['line']} "
            f"({first['reason']}): fix the source or raise interactions.max_reject_share"
        )


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
