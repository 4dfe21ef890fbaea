"""Time and memory of interactions and splits by the number of generated rows, on DuckDB or Spark.

Users and items follow power laws. Each size and stage runs in a separate process, as in the pipeline. Memory includes
Spark's JVM.
"""

import argparse
import hashlib
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.figures import Figure, Measured, in_own_process, print_figures
from llmsrec.core.config import load_section
from llmsrec.parsing.ingest import PARSED_SCHEMA, order_interactions
from llmsrec.parsing.metadata import ITEM_SCHEMA
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.preprocessing.splitting import split
from llmsrec.relational.interactions import Interactions
from llmsrec.relational.sql_engine import RelationalConfig, engine, write

BLOCK = 500_000
USERS, ITEM_SHARE = 0.5, 0.04  # at most per row, as in Electronics
DAY = 86_400_000


def generate(folder: Path, rows: int) -> None:
    """Write parsed.parquet and items.parquet as the parser does; few users have hundreds of rows, most have one."""
    draws = np.random.default_rng(rows)
    with pq.ParquetWriter(folder / "parsed.parquet", PARSED_SCHEMA) as out:
        for start in range(0, rows, BLOCK):
            size = min(BLOCK, rows - start)
            users = (rows * USERS * draws.random(size) ** 2.5).astype(np.int64)
            items = (rows * ITEM_SHARE * draws.random(size) ** 4).astype(np.int64)
            columns = {
                "user_id": _ids("AE", users, 26),
                "item_id": _ids("B", items, 9),
                "timestamp": 1_262_304_000_000 + DAY * draws.integers(4_000, size=size),
                "rating": draws.integers(1, 6, size=size).astype(float),
                "source_order": np.arange(start, start + size),
                "part": pa.nulls(size, pa.int64()),
            }
            out.write_table(
                pa.table(
                    {name: columns[name] for name in PARSED_SCHEMA.names}, schema=PARSED_SCHEMA
                )
            )
    pq.write_table(ITEM_SCHEMA.empty_table(), folder / "items.parquet")


def _ids(prefix: str, numbers: np.ndarray, width: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def order(folder: Path, relational: RelationalConfig) -> int:
    """The stage `interactions` after parsing; the number of rows."""
    with engine(relational, folder / "scratch") as connection:
        table = order_interactions(connection.read_parquet(folder / "parsed.parquet"), tie_seed=0)
        write(table.order_by(["user_id", "position"]), folder / "interactions.parquet")
    return pq.read_metadata(folder / "interactions.parquet").num_rows


def split_interactions(
    folder: Path, relational: RelationalConfig, config: SplitsConfig
) -> tuple[int, int, str]:
    """The stage `splits` without its expectations; users, interactions, and a digest of the saved files."""
    with engine(relational, folder / "scratch") as connection:
        splits = split(Interactions.load(folder, connection), config)
    splits.save(folder / "splits")
    digest = hashlib.sha256()
    for file in sorted((folder / "splits").iterdir()):
        digest.update(file.read_bytes())
    return splits.num_users, len(splits.sequences.items), digest.hexdigest()


def _report(name: str, rows: int, measured: Measured) -> None:
    print(
        f"    {name:22} {measured.seconds:7.1f} s, {measured.cpu_seconds:6.1f} core seconds  "
        f"{rows / measured.cpu_seconds:>9,.0f} rows/core s  peak {measured.peak_bytes / 1e6:,.0f} MB",
        flush=True,
    )


def measure(
    folder: Path, rows: int, relational: RelationalConfig, config: SplitsConfig
) -> tuple[Measured, Measured]:
    """Both stages at one size, on one engine."""
    interactions = in_own_process(order, folder, relational)
    _report(f"interactions, {relational.engine}", rows, interactions)
    splits = in_own_process(split_interactions, folder, relational, config)
    _report(f"splits, {relational.engine}", rows, splits)
    users, remaining, _ = splits.result
    print(f"        {interactions.result:,} interactions; {remaining:,} of {users:,} users remain")
    return interactions, splits


def _growth(done: list[tuple[Measured, Measured]], rows: list[int]) -> list[Figure]:
    """The smallest size against the largest, by core seconds and by peak memory."""
    figures, growth = [], rows[-1] / rows[0]
    for stage, name in enumerate(("interactions", "splits")):
        first, last = done[0][stage], done[-1][stage]
        speed = growth * first.cpu_seconds / last.cpu_seconds
        figures.append(Figure(f"{name}: rows per core second, largest over smallest", speed, 0.6))
        memory = growth * first.peak_bytes / last.peak_bytes
        figures.append(Figure(f"{name}: growth of rows over growth of memory", memory, 1.5))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 3])
    parser.add_argument("--engines", nargs="+", choices=["duckdb", "spark"], default=["duckdb"])
    parser.add_argument("--memory-mb", type=int, help="default: that of params.yaml")
    parser.add_argument("--max-users", type=int, help="evaluated users; default: all")
    args = parser.parse_args()
    relational = load_section(RelationalConfig, "relational")
    relational = replace(relational, memory_mb=args.memory_mb or relational.memory_mb)
    config = load_section(SplitsConfig, "splits")
    config = replace(config, generation_negatives=0, max_users=args.max_users)  # no titles
    rows = [int(millions * 1_000_000) for millions in args.millions]
    done: dict[str, list[tuple[Measured, Measured]]] = {name: [] for name in args.engines}
    for size in rows:
        print(f"{size / 1e6:g} million interactions")
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".scaling-") as scratch:
            in_own_process(generate, Path(scratch), size)
            for name in args.engines:
                measured = measure(Path(scratch), size, replace(relational, engine=name), config)
                done[name].append(measured)
        digests = {results[-1][1].result[2] for results in done.values()}
        assert len(digests) == 1, "the results of the engines differ"
    print_figures(_growth(done[args.engines[0]], rows))


if __name__ == "__main__":
    main()
