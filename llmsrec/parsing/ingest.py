"""Interactions: one row for each user and item, in the order of each user's purchases.

The relational part is one Ibis program, on DuckDB or on Spark (engines.py).
"""

import re
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
from llmsrec.parsing.metadata import ITEMS, parse_metadata
from llmsrec.parsing.parse_cache import ParseCache
from llmsrec.parsing.reviews import REJECTS, ROWS, WORKERS, Parsed, Period, Texts
from llmsrec.relational.interactions import PARTS
from llmsrec.relational.sql_engine import RelationalConfig, engine, to_arrow, write

IN_PROCESS = RelationalConfig("duckdb", 250, WORKERS)
PARSED = pa.schema(
    [*(field for field in ROWS if field.name != "line"), ("source_order", pa.int64()), ("part", pa.int64())]
)  # fmt: skip
_READY_SPLIT = re.compile(r"\.(train|valid|test)\.csv(\.gz)?$")


@dataclass(frozen=True)
class InteractionsConfig:
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
    rejects_kept: Path,
    parses_kept: Path | None = None,
    relational: RelationalConfig = IN_PROCESS,
) -> dict[str, Any]:
    """Parse every raw file of a dataset into the folder `out`; returns what was counted.

    `rejects_kept` receives the broken lines when there are too many to go on; in the folder `parses_kept` each file's
    parse stays for the next run."""
    reviews, metadata = raw_files(raw)
    kept = ParseCache(parses_kept)
    with atomic_directory(out) as aside:
        texts: dict[str, Texts] = {}
        counts = {
            "reviews": _parse_reviews(reviews, aside, config, kept, texts),
            "metadata": _parse_metadata(metadata, aside, kept, texts),
        }
        try:
            _judge(counts["reviews"], aside / "rejects.parquet", config.max_reject_share)
        except DataError:
            with atomic_write(rejects_kept) as copy:
                copy.write_bytes((aside / "rejects.parquet").read_bytes())
            raise
        with engine(relational, aside / "spill") as connection:
            summary = _order(aside, config.tie_seed, connection)
        (aside / "parsed.parquet").unlink()
    kept.remove_unused()
    found = counts["reviews"]
    found["rows"] = summary["interactions"]
    found["duplicates"] = found.pop("accepted") - found["rows"]
    assert found["lines"] == found["rows"] + found["duplicates"] + found["rejects"]
    return {**counts, **summary}


def raw_files(raw: Path) -> tuple[list[Path], list[Path]]:
    """Review files (train before valid before test) and metadata files of a folder.

    Among these, by name. Files that arrived are named by a hash of their content and come before `meta_X.jsonl`, so
    that what arrives later corrects an item's texts, and the set of files alone decides, not their order of arrival."""
    if not raw.is_dir():
        raise DataError(f"{raw} is no folder: fetch the raw files first (`llmsrec download`)")
    files = sorted(file for file in raw.iterdir() if not file.name.startswith("."))
    known = [file for file in files if re.search(r"\.(jsonl|csv)(\.gz)?$", file.name)]
    metadata = [file for file in known if file.name.startswith("meta_")]
    reviews = sorted(
        (file for file in known if file not in metadata), key=lambda file: (_part(file) or 0, file)
    )
    if strange := [file.name for file in files if file not in known]:
        raise DataError(f"{raw} holds {strange}: only .jsonl and .csv, gzipped or not, are known")
    if not reviews:
        raise DataError(f"{raw} holds no review file (.jsonl or .csv, gzipped or not)")
    if len({_part(file) is None for file in reviews}) > 1:
        raise DataError(
            f"{raw} mixes a ready split (.train.csv ...) with unsplit files: keep one kind"
        )
    return reviews, metadata


def is_ready_split(name: str) -> bool:
    return _READY_SPLIT.search(name) is not None


def _part(file: Path) -> int | None:
    match = _READY_SPLIT.search(file.name)
    return PARTS.index(match[1]) if match else None


def _parse_reviews(
    files: list[Path],
    aside: Path,
    config: InteractionsConfig,
    kept: ParseCache,
    texts: dict[str, Texts],
) -> dict[str, Any]:
    """Stream all rows to parsed.parquet and all broken lines to rejects.parquet."""
    period = Period(config.earliest, config.latest)
    with (
        pq.ParquetWriter(aside / "parsed.parquet", PARSED) as rows,
        pq.ParquetWriter(aside / "rejects.parquet", REJECTS) as rejects,
    ):
        counted: Counter[str] = Counter()
        for file in files:
            blocks = kept.blocks(file, str(period), ROWS, partial(parse_file, file, period))
            part = pa.scalar(_part(file), pa.int64())
            for block in _tally(blocks, rejects, counted):
                for item, found in block.texts.items():
                    texts.setdefault(item, found)
                stop = counted["accepted"]
                order = pa.array(np.arange(stop - block.rows.num_rows, stop))
                columns = block.rows.sort_by("line").drop_columns("line").columns
                parts = pa.repeat(part, len(order))
                rows.write_table(pa.table([*columns, order, parts], schema=PARSED))
    return {"files": [file.name for file in files], **_report(counted)}


def _parse_metadata(
    files: list[Path], aside: Path, kept: ParseCache, texts: dict[str, Texts]
) -> dict[str, Any]:
    """items.parquet: the first line of an item counts; texts of CSV rows fill what is left."""
    counted: Counter[str] = Counter()
    seen: set[str] = set()
    with (
        pq.ParquetWriter(aside / "items.parquet", ITEMS) as items,
        pq.ParquetWriter(aside / "rejects_metadata.parquet", REJECTS) as rejects,
    ):
        for file in files:
            blocks = kept.blocks(file, "metadata", ITEMS, partial(parse_metadata, file))
            for block in _tally(blocks, rejects, counted):
                new = []
                for item_id in block.rows["item_id"].to_pylist():
                    new.append(item_id not in seen)
                    seen.add(item_id)
                items.write_table(block.rows.filter(pa.array(new, pa.bool_())))
        rest = [{"item_id": key, **text} for key, text in texts.items() if key not in seen]
        items.write_table(pa.Table.from_pylist(rest, ITEMS))
    report = _report(counted)
    report["rows"] = len(seen)
    report["duplicates"] = report.pop("accepted") - len(seen)
    return {"files": [file.name for file in files], **report}


def _tally(
    blocks: Iterator[Parsed], rejects: pq.ParquetWriter, counted: Counter[str]
) -> Iterator[Parsed]:
    """Pass the blocks on, writing their rejects and counting."""
    for block in blocks:
        counted["lines"] += block.num_lines - block.num_blank
        counted["accepted"] += block.rows.num_rows
        rejects.write_table(block.rejects)
        for pair in pc.value_counts(block.rejects["reason"]).to_pylist():
            counted[f"reject: {pair['values']}"] += pair["counts"]
        yield block


def _report(counted: Counter[str]) -> dict[str, Any]:
    reasons = {
        key.removeprefix("reject: "): count
        for key, count in counted.most_common()
        if key.startswith("reject: ")
    }
    return {
        "lines": counted["lines"],
        "accepted": counted["accepted"],
        "rejects": sum(reasons.values()),
        "rejects_by_reason": reasons,
    }


def _judge(counts: dict[str, Any], rejects: Path, limit: float) -> None:
    """Stop a run whose input is broken rather than train on what is left of it."""
    if counts["accepted"] == 0:
        raise DataError(f"none of the {counts['lines']} lines of {counts['files']} is a review")
    share = counts["rejects"] / counts["lines"]
    if share > limit:
        first = pq.read_table(rejects).slice(0, 1).to_pylist()[0]
        reason = next(iter(counts["rejects_by_reason"]))
        raise DataError(
            f"{counts['rejects']:,} of {counts['lines']:,} lines are broken ({share:.1%}; allowed "
            f"{limit:.1%}), most often '{reason}', first {first['file']} line {first['line']} "
            f"({first['reason']}): mend the source or raise interactions.max_reject_share"
        )


def order_interactions(parsed: ibis.Table, tie_seed: int) -> ibis.Table:
    """The earliest purchase of each (user, item), numbered within each user.

    Purchases of one moment are ordered by a seeded hash: sources are often sorted by item, and that order leaks."""
    first = ibis.row_number().over(
        group_by=["user_id", "item_id"], order_by=["part", "timestamp", "rating", "source_order"]
    )
    kept = parsed.mutate(first=first).filter(ibis._.first == 0)
    tie = (ibis.literal(f"{tie_seed}:") + kept.user_id + ":" + kept.item_id).hexdigest("md5")
    kept = kept.mutate(tie=tie)
    position = ibis.row_number().over(
        group_by="user_id", order_by=["part", "timestamp", "tie", "item_id"]
    )
    return kept.mutate(position=position.cast("int64")).select(
        "user_id", "item_id", "timestamp", "rating", "source_order", "part", "position"
    )


def _order(aside: Path, tie_seed: int, connection: ibis.BaseBackend) -> dict[str, Any]:
    table = order_interactions(connection.read_parquet(aside / "parsed.parquet"), tie_seed)
    out = aside / "interactions.parquet"
    write(table.order_by(["user_id", "position"]), out)
    return _summary(connection.read_parquet(out), connection.read_parquet(aside / "items.parquet"))


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
    sold = rows.select("item_id").distinct().anti_join(items, "item_id")
    (bare,) = to_arrow(sold.aggregate(num=sold.count()))["num"].to_pylist()
    return {
        "interactions": totals["interactions"],
        "users": totals["users"],
        "items": totals["items"],
        "items_without_metadata": bare,
        "tie_share": round(totals["tie_share"] or 0.0, 6),
        "first_day": _day(totals["first"]),
        "last_day": _day(totals["last"]),
    }


def _day(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()
