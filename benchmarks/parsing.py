"""Parsing of raw reviews and the whole interactions stage, against plain Python, on a generated gzip file.

The reference uses gzip.open, json.loads and the same rules; for the stage also a dictionary, sorted() and hashlib.
Both must return the same rows. Memory is the peak of the stage's process. CSV is parsed on one thread, from plain files
with and without quotes; its reference calls csv.reader for each line.
"""

import argparse
import gzip
import hashlib
import json
import random
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from isal import igzip

from benchmarks.csv_parsing import measure_csv
from benchmarks.figures import Figure, Measured, in_own_process, print_figures
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


def _digest(frame: pd.DataFrame) -> str:
    columns = frame[["user_id", "item_id", "timestamp"]]
    return hashlib.sha256(pd.util.hash_pandas_object(columns, index=False).to_numpy()).hexdigest()


def _report(name: str, lines: int, measured: Measured) -> None:
    print(
        f"    {name:24} {measured.seconds:6.1f} s  {lines / measured.seconds:>11,.0f} lines/s  "
        f"peak {measured.peak_bytes / 1e6:,.0f} MB",
        flush=True,
    )


def measure(file: Path, lines: int, *, compare: bool) -> tuple[int, list[Figure]]:
    """Peak bytes of the stage, and the figures against the reference if `compare`."""
    generate(file, lines)
    link = file.parents[1] / file.name  # the stage reads a folder with raw files alone
    link.symlink_to(file)
    print(f"{lines / 1e6:g} million lines, {file.stat().st_size / 1e6:,.0f} MB gzipped")
    ours_stage = in_own_process(stage, link)
    _report("the whole stage", lines, ours_stage)
    if not compare:
        return ours_stage.peak_bytes, []
    ours = in_own_process(reader, link)
    _report("parsing alone", lines, ours)
    loop = in_own_process(plain_parse, link)
    _report("parsing, reference", lines, loop)
    assert loop.result == ours.result, (loop.result, ours.result)
    loop_stage = in_own_process(plain_stage, link)
    _report("the whole stage, reference", lines, loop_stage)
    table = pd.read_parquet(file.parents[1] / "out" / "interactions.parquet")
    assert loop_stage.result == _digest(table), "the results differ"
    return ours_stage.peak_bytes, [
        Figure("parsing: rows/s against a plain loop", loop.seconds / ours.seconds, 10),
        Figure("interactions stage: rows/s, plain", loop_stage.seconds / ours_stage.seconds, 10),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 3, 6])
    parser.add_argument(
        "--compare", type=float, default=3, help="the size that is also measured with the reference"
    )
    args = parser.parse_args()
    peaks: list[int] = []
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        figures += measure_csv(Path(scratch), int(args.compare * 1_000_000))
        for millions in args.millions:
            file = Path(scratch) / f"{millions:g}" / "raw" / "reviews.jsonl.gz"
            file.parent.mkdir(parents=True)
            lines = int(millions * 1_000_000)
            peak, compared = measure(file, lines, compare=millions == args.compare)
            peaks.append(peak)
            figures += compared
    figures += [
        Figure("interactions stage: 2 GB over its peak memory", 2e9 / max(peaks), 1),
        Figure("interactions stage: peak, smallest file over largest", peaks[0] / peaks[-1], 0.8),
    ]
    print_figures(figures)


if __name__ == "__main__":
    main()
