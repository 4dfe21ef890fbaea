"""Parsing of raw reviews and the whole interactions stage, against plain Python, on a generated gzip file.

The reference uses gzip.open, json.loads and the same rules; for the stage also a dictionary, sorted() and hashlib.
Both must return the same rows. Memory is the peak of the stage's process. CSV is parsed on one thread, from plain files
with and without quotes; its reference calls csv.reader for each line.
"""

import gzip
import hashlib
import json
import random
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from isal import igzip

from benchmarks.csv_parsing import compare_csv
from benchmarks.figures import Figure, in_own_process, run_benchmark
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.parsing.reviews import REVIEW_SCHEMA, DateRange, parse_reviews

CONFIG = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), max_reject_share=0.05, tie_seed=0)
PERIOD = DateRange(CONFIG.earliest, CONFIG.latest)
WORDS = ["works", "great", "love", "this", "bought", "it", "for", "my", "son", "quality", "would",
         "buy", "again", "broke", "after", "two", "weeks", "easy", "to", "use", "the", "colour"]  # fmt: skip


def generate(file: Path, lines: int) -> None:
    """Write reviews in the schema of Amazon Reviews 2023; one line in 2,000 is broken, one in 100 a duplicate."""
    draws = random.Random(lines)
    texts = [" ".join(draws.choices(WORDS, k=draws.randrange(5, 60))) for _ in range(2_000)]
    with igzip.open(file, "wb", compresslevel=1) as out:
        for start in range(0, lines, 50_000):
            block = [_line(draws, texts) for _ in range(min(50_000, lines - start))]
            out.write("".join(block).encode())


def _line(draws: random.Random, texts: list[str]) -> str:
    chance = draws.random()
    if chance < 0.0005:
        return '{"rating": 5.0, "title": "cut off in the mid\n'
    user, item = int(draws.random() * 400_000), int(draws.random() ** 2 * 60_000)
    time = 1_262_304_000_000 + 86_400_000 * int(draws.random() * 4_000)
    text, asin = texts[int(draws.random() * 2_000)], f"B{item:09d}"
    record = {"rating": 1.0 + int(draws.random() * 5), "title": text[:30], "text": text, "images": [], "asin": asin,
              "parent_asin": asin, "user_id": f"AE{user:026d}", "timestamp": time, "helpful_vote": 0,
              "verified_purchase": True}  # fmt: skip
    return json.dumps(record) + "\n"


def plain_rows(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of the valid lines and the number of rejected lines, by a loop."""
    low, high = PERIOD.milliseconds
    rows, rejects = [], 0
    with gzip.open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                record = json.loads(line)
            except ValueError:
                rejects += 1
                continue
            user, item, time = (
                record.get(name) for name in ("user_id", "parent_asin", "timestamp")
            )
            if (
                not (isinstance(user, str) and user and isinstance(item, str) and item)
                or not isinstance(time, int)
                or not low <= time < high
            ):
                rejects += 1
            else:
                rating = record.get("rating")
                row = {"user_id": user, "item_id": item, "timestamp": time, "rating": rating}
                rows.append({**row, "line": number})
    return rows, rejects


def _digest(frame: pd.DataFrame) -> str:
    columns = frame[["user_id", "item_id", "timestamp"]]
    return hashlib.sha256(pd.util.hash_pandas_object(columns, index=False).to_numpy()).hexdigest()


def plain_parse(file: Path) -> tuple[int, int]:
    """Parse to Parquet by the loop; the numbers of rows and rejects."""
    rows, rejects = plain_rows(file)
    pd.DataFrame(rows).to_parquet(file.with_name("plain.parquet"))
    return len(rows), rejects


def plain_stage(file: Path) -> str:
    """Parse, keep the earliest row of each (user, item), sort by user, time and hash; a digest of the rows."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for row in plain_rows(file)[0]:
        key = row["user_id"], row["item_id"]
        if key not in first or row["timestamp"] < first[key]["timestamp"]:
            first[key] = row
    ordered = sorted(
        first.values(),
        key=lambda row: (
            row["user_id"],
            row["timestamp"],
            hashlib.md5(
                f"{CONFIG.tie_seed}:{row['user_id']}:{row['item_id']}".encode()
            ).hexdigest(),
        ),
    )
    frame = pd.DataFrame(ordered)
    frame.to_parquet(file.with_name("plain.parquet"))
    return _digest(frame)


def reader(file: Path) -> tuple[int, int]:
    """Parse to Parquet by the project's reader; the numbers of rows and rejects."""
    rows = rejects = 0
    with pq.ParquetWriter(file.with_name("ours.parquet"), REVIEW_SCHEMA) as out:
        for block in parse_reviews(file, PERIOD):
            out.write_table(block.rows)
            rows += block.rows.num_rows
            rejects += block.rejects.num_rows
    return rows, rejects


def stage(file: Path) -> None:
    """The whole interactions stage: parse, de-duplicate, order, write."""
    raw, out = file.parent / "raw", file.parent / "out"
    ingest(raw, out, CONFIG, rejects_file=out / "rejects.parquet")


def compare(link: Path, lines: int, stage_seconds: float) -> Iterator[Figure]:
    """Parsing alone and the whole stage against the reference; raises SystemExit if the results differ."""
    ours, loop, loop_stage = (
        in_own_process(work, link) for work in (reader, plain_parse, plain_stage)
    )
    ours.show("parsing alone", lines)
    loop.show("parsing, reference", lines)
    loop_stage.show("the whole stage, reference", lines)
    table = pd.read_parquet(link.parent / "out" / "interactions.parquet")
    if loop.result != ours.result or loop_stage.result != _digest(table):
        raise SystemExit("the results differ from the reference")
    yield Figure("parsing: rows/s against a plain loop", loop.seconds / ours.seconds, 10)
    yield Figure("interactions stage: rows/s, plain", loop_stage.seconds / stage_seconds, 10)


def figures(millions: tuple[float, ...] = (1.0, 3.0, 6.0), compared: float = 3.0) -> Iterator[Figure]:  # fmt: skip
    """Files of so many million lines; the reference runs on the one of `compared` million, as on CSV files."""
    peaks: list[int] = []
    with tempfile.TemporaryDirectory() as scratch:
        yield from compare_csv(Path(scratch), int(compared * 1_000_000))
        for size in millions:
            file = Path(scratch) / f"{size:g}" / "raw" / "reviews.jsonl.gz"
            file.parent.mkdir(parents=True)
            lines = int(size * 1_000_000)
            generate(file, lines)
            link = file.parents[1] / file.name  # the stage reads a folder with raw files alone
            link.symlink_to(file)
            print(f"{size:g} million lines, {file.stat().st_size / 1e6:,.0f} MB gzipped")
            measured = in_own_process(stage, link)
            measured.show("the whole stage", lines)
            peaks.append(measured.peak_bytes)
            if size == compared:
                yield from compare(link, lines, measured.seconds)
    yield Figure("interactions stage: 2 GB over its peak memory", 2e9 / max(peaks), 1)
    yield Figure("interactions stage: peak, smallest file over largest", peaks[0] / peaks[-1], 0.8)


if __name__ == "__main__":
    run_benchmark(figures)
