"""The SQL engine, DuckDB in this process or Spark: one Ibis program with the same result on both (decision 14)."""

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

BATCH_ROWS = 500_000  # rows fetched from the engine at a time
SPARK_MIN_MEMORY_MB = 512  # Spark's own lower limit is 450


@dataclass(frozen=True)
class RelationalConfig:
    """The SQL engine and its resources."""

    engine: Literal["duckdb", "spark"]
    memory_mb: Count  # DuckDB spills to disk beyond it; for Spark it is the heap
    threads: Count | None  # null means all cores

    def __post_init__(self) -> None:
        if self.engine == "spark" and self.memory_mb < SPARK_MIN_MEMORY_MB:
            raise ValueError(f"Spark needs memory_mb of at least {SPARK_MIN_MEMORY_MB}")


@contextmanager
def engine(config: RelationalConfig, scratch: Path) -> Iterator[ibis.BaseBackend]:
    """Yield a connection; its spill files are in a temporary folder below `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=scratch, prefix=f"{config.engine}-") as folder:
            connect = _duckdb if config.engine == "duckdb" else _spark
            connection = connect(config, Path(folder))
            try:
                yield connection
            finally:
                connection.disconnect()
    finally:
        with suppress(OSError):  # other files are there
            scratch.rmdir()


def _duckdb(config: RelationalConfig, folder: Path) -> ibis.BaseBackend:
    return ibis.duckdb.connect(
        memory_limit=f"{config.memory_mb}MB",
        threads=config.threads or os.cpu_count() or 1,
        temp_directory=str(folder),
        allocator_flush_threshold="16MB",  # returns freed memory to the system
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


def materialize(table: ibis.Table, *, replaces: ibis.Table | None = None) -> ibis.Table:
    """The same table, computed once and held until the engine is closed; drops `replaces`, an earlier result."""
    backend, name = table.get_backend(), f"materialized_{uuid.uuid4().hex}"
    if backend.name == "duckdb":
        # not `.cache()`, which drops the table on garbage collection, even after the connection was closed
        result = backend.create_table(name, table, temp=True)
        if replaces is not None:
            backend.drop_table(replaces.op().name)
        return result
    from llmsrec.relational import spark

    return spark.materialize(table, name, replaces)


def batches(table: ibis.Table) -> Iterator[pa.RecordBatch]:
    """The rows in the table's order, in batches."""
    backend, schema = table.get_backend(), _schema(table)
    if backend.name == "duckdb":
        # not `to_pyarrow_batches`, which in ibis 12 uses a function that duckdb 2 removed
        result = iter(backend.con.sql(backend.compile(table)).to_arrow_reader(BATCH_ROWS))
    else:
        from llmsrec.relational import spark

        result = spark.batches(table, BATCH_ROWS)
    for batch in result:
        yield batch.cast(schema)


def to_arrow(table: ibis.Table) -> pa.Table:
    """All rows of a small table."""
    return pa.Table.from_batches(batches(table), _schema(table))


def _schema(table: ibis.Table) -> pa.Schema:
    """All columns nullable; Spark otherwise marks some columns as not null."""
    return pa.schema([field.with_nullable(True) for field in table.schema().to_pyarrow()])


def register(rows: pa.Table, backend: ibis.BaseBackend) -> ibis.Table:
    """An Arrow table as a table of the engine."""
    if backend.name == "duckdb":
        return backend.create_table(f"registered_{uuid.uuid4().hex}", rows, temp=True)
    from llmsrec.relational import spark

    return spark.register(rows, backend)


def write(table: ibis.Table, file: Path) -> None:
    """Write one Parquet file in the table's order."""
    if table.get_backend().name == "duckdb":
        table.to_parquet(file)
        return
    with pq.ParquetWriter(file, _schema(table)) as writer:
        for batch in batches(table):
            writer.write_batch(batch)
