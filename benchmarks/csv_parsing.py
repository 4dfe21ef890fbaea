"""The CSV part of `benchmarks.parsing`: interactions on one thread, against csv.reader for each line."""

import csv
import random
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

from benchmarks.figures import Figure, in_own_process
from llmsrec.parsing import csv_reader
from llmsrec.parsing.reviews import DateRange

PERIOD = DateRange(date(1995, 7, 16), date(2035, 1, 1))


def generate_csv(file: Path, lines: int, quote: str) -> None:
    """Write interactions as CSV, every value in `quote`; one line in 2,000 lacks its time."""
    draws = random.Random(lines)
    with file.open("w") as out:
        out.write("user_id,parent_asin,rating,timestamp\n")
        for _ in range(lines):
            moment = 1_262_304_000_000 + int(draws.random() * 345_600_000_000)
            values = [
                f"AE{int(draws.random() * 400_000):026d}",
                f"B{int(draws.random() * 60_000):09d}",
            ]
            values += [str(1.0 + int(draws.random() * 5)), str(moment)]
            values = values[: 3 + (draws.random() > 0.0005)]
            out.write(",".join(f"{quote}{value}{quote}" for value in values) + "\n")


def plain_csv(file: Path) -> tuple[int, int]:
    """The numbers of valid and of other lines, by a loop over `csv`."""
    low, high = PERIOD.milliseconds
    rows, rejects = [], 0
    with file.open() as stream:
        columns = next(csv.reader([next(stream)]))
        for line in stream:
            values = next(csv.reader([line], strict=True))
            record = dict(zip(columns, values, strict=False))
            user, item, time = (
                record.get(name) for name in ("user_id", "parent_asin", "timestamp")
            )
            if not user or not item or not time or not low <= int(time) < high:
                rejects += 1
            else:
                rows.append((user, item, int(time), float(record["rating"])))
    return len(rows), rejects


def csv_on_one_thread(file: Path) -> tuple[int, int]:
    """The same numbers by the project's reader, without its threads."""
    csv_reader.in_threads = map  # type: ignore[assignment]
    rows = rejects = 0
    for block in csv_reader.parse_csv_reviews(file, PERIOD):
        rows += block.rows.num_rows
        rejects += block.rejects.num_rows
    return rows, rejects


def clocked(work: Callable[[Path], tuple[int, int]], file: Path) -> tuple[tuple[int, int], float]:
    """The result of a call on one thread and its CPU time, which hardly depends on the machine's load."""
    start = time.thread_time()
    return work(file), time.thread_time() - start


def compare_csv(folder: Path, lines: int) -> Iterator[Figure]:
    """Lines per second of CPU time on one thread, absolute and against the loop."""
    for name, quote in (("CSV", ""), ("CSV in quotes", '"')):
        file = folder / "interactions.csv"
        generate_csv(file, lines, quote)
        ours, seconds = in_own_process(clocked, csv_on_one_thread, file).result
        loop, loop_seconds = in_own_process(clocked, plain_csv, file).result
        if ours != loop:
            raise SystemExit(f"{name}: the results differ from the reference: {ours}, not {loop}")
        rate = lines / seconds
        print(f"    {name}: {rate:,.0f} lines/s, reference {lines / loop_seconds:,.0f}", flush=True)
        yield Figure(f"{name}: millions of lines/s on one thread", rate / 1e6, 1)
        yield Figure(f"{name}: lines/s against a loop, one thread", loop_seconds / seconds, 5)
