"""Time and memory of interactions and splits by the number of generated rows, on DuckDB or Spark.

Users and items follow power laws. Each size and stage runs in a separate process, as in the pipeline. Memory includes
Spark's JVM.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.figures import Figure, Measured, in_own_process, run_benchmark
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


def measure(
    folder: Path, rows: int, relational: RelationalConfig, config: SplitsConfig
) -> tuple[Measured, Measured]:
    """Both stages at one size, on one engine."""
    interactions = in_own_process(order, folder, relational)
    interactions.show(f"interactions, {relational.engine}", rows)
    splits = in_own_process(split_interactions, folder, relational, config)
    splits.show(f"splits, {relational.engine}", rows)
    users, remaining, _ = splits.result
    print(f"        {interactions.result:,} interactions; {remaining:,} of {users:,} users remain")
    return interactions, splits


def figures(
    millions: tuple[float, ...] = (1.0, 3.0), engines: tuple[str, ...] = ("duckdb",),
    memory_mb: int = 0, max_users: int = 0,
) -> Iterator[Figure]:  # fmt: skip
    """The smallest size against the largest on the first engine; 0: that of params.yaml, and all users."""
    relational = load_section(RelationalConfig, "relational")
    relational = replace(relational, memory_mb=memory_mb or relational.memory_mb)
    config = load_section(SplitsConfig, "splits")
    config = replace(config, generation_negatives=0, max_users=max_users or None)  # no titles
    first: list[tuple[Measured, Measured]] = []  # on the first engine
    for size in millions:
        print(f"{size:g} million interactions")
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".scaling-") as folder:
            rows, scratch = int(size * 1_000_000), Path(folder)
            in_own_process(generate, scratch, rows)
            chosen = [replace(relational, engine=name) for name in engines]
            measured = [measure(scratch, rows, engine, config) for engine in chosen]
        if len({splits.result[2] for _, splits in measured}) > 1:
            raise SystemExit("the results of the engines differ")
        first.append(measured[0])
    growth = millions[-1] / millions[0]
    for name, small, large in zip(("interactions", "splits"), first[0], first[-1], strict=True):
        speed = growth * small.cpu_seconds / large.cpu_seconds
        yield Figure(f"{name}: rows per core second, largest over smallest", speed, 0.6)
        memory = growth * small.peak_bytes / large.peak_bytes
        yield Figure(f"{name}: growth of rows over growth of memory", memory, 1.5)


if __name__ == "__main__":
    run_benchmark(figures)
