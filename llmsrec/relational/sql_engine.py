"""The engine of the relational work, DuckDB in this process or Spark: one Ibis program, the same rows (decision 14)."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from llmsrec.core.config import Count
from llmsrec.core.errors import ConfigError

BATCH = 500_000  # rows that leave the engine at a time
SPARK_LEAST_MB = 512  # Spark's own lower limit is 450


@dataclass(frozen=True)
class RelationalConfig:
    engine: Literal["duckdb", "spark"]
    memory_mb: Count  # DuckDB spills what is more; of Spark it is the heap
    threads: Count | None  # null is all cores

    def __post_init__(self) -> None:
        if self.engine == "spark" and self.memory_mb < SPARK_LEAST_MB:
            raise ValueError(f"Spark needs memory_mb of at least {SPARK_LEAST_MB}")


@contextmanager
def engine(config: RelationalConfig, scratch: Path) -> Iterator[ibis.BaseBackend]:
    """A connection; what it spills lies in a folder of its own in `scratch` and goes with it."""
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=scratch, prefix=f"{config.engine}-") as folder:
            open_it = _duckdb if config.engine == "duckdb" else _spark
            connection = open_it(config, Path(folder))
            try:
                yield connection
            finally:
                connection.disconnect()
    finally:
        with suppress(OSError):  # somebody else's files lie there
            scratch.rmdir()


def _duckdb(config: RelationalConfig, folder: Path) -> ibis.BaseBackend:
    return ibis.duckdb.connect(
        memory_limit=f"{config.memory_mb}MB",
        threads=config.threads or os.cpu_count() or 1,
        temp_directory=str(folder),
        allocator_flush_threshold="16MB",  # what is freed goes back to the system
    )


def _spark(config: RelationalConfig, folder: Path) -> ibis.BaseBackend:
    try:
        from llmsrec.relational import spark
    except ImportError as error:
        raise ConfigError(
            f"relational.engine is spark, but {error.name} is not installed: "
            "pip install --constraint constraints.txt 'llmsrec[spark]', or set it to duckdb"
        ) from None
    return spark.connect(folder, config.memory_mb, config.threads or "*")


def materialize(table: ibis.Table, *, instead: ibis.Table | None = None) -> ibis.Table:
    """The same table, computed once, until the engine is closed; `instead` was kept before and goes."""
    backend, name = table.get_backend(), f"kept_{uuid.uuid4().hex}"
    if backend.name == "duckdb":
        # not `.cache()`: it would drop its table when nothing holds it, be the connection closed by then or not
        made = backend.create_table(name, table, temp=True)
        if instead is not None:
            backend.drop_table(instead.op().name)
        return made
    from llmsrec.relational import spark

    return spark.materialize(table, name, instead)


def batches(table: ibis.Table) -> Iterator[pa.RecordBatch]:
    """The rows in the table's order, never all at a time."""
    backend, schema = table.get_backend(), _schema(table)
    if backend.name == "duckdb":
        # not `to_pyarrow_batches`: that of ibis 12 asks duckdb 2 for what it no longer has
        found = iter(backend.con.sql(backend.compile(table)).to_arrow_reader(BATCH))
    else:
        from llmsrec.relational import spark

        found = spark.batches(table, BATCH)
    for batch in found:
        yield batch.cast(schema)


def to_arrow(table: ibis.Table) -> pa.Table:
    """All rows, for tables that are small."""
    return pa.Table.from_batches(batches(table), _schema(table))


def _schema(table: ibis.Table) -> pa.Schema:
    """Spark also says which columns have no null by their origin; nobody here reads that."""
    return pa.schema([field.with_nullable(True) for field in table.schema().to_pyarrow()])


def register(rows: pa.Table, backend: ibis.BaseBackend) -> ibis.Table:
    """Rows of ours, as a table of the engine."""
    if backend.name == "duckdb":
        return backend.create_table(f"lent_{uuid.uuid4().hex}", rows, temp=True)
    from llmsrec.relational import spark

    return spark.register(rows, backend)


def write(table: ibis.Table, file: Path) -> None:
    """One Parquet file, in the table's order."""
    if table.get_backend().name == "duckdb":
        table.to_parquet(file)
        return
    with pq.ParquetWriter(file, _schema(table)) as out:
        for batch in batches(table):
            out.write_batch(batch)
