"""Spark in local mode; the only module that imports it. Results pass through Parquet files.

Collecting a result would hold all rows twice, in the JVM and here; files are written in parallel and read in batches.
"""

import os
import shutil
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import SparkSession

from llmsrec.core.errors import ConfigError

FOLDER = "llmsrec.scratch"  # our own key in the session's settings: the folder of these files


def connect(folder: Path, memory_mb: int, threads: int | str) -> ibis.BaseBackend:
    """A session that listens on localhost only and writes below `folder`; ConfigError without Java 17."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # else it searches the network interfaces
    settings = {
        "spark.driver.memory": f"{memory_mb}m",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.catalogImplementation": "in-memory",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
    builder = SparkSession.builder.appName("llmsrec").master(f"local[{threads}]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except PySparkRuntimeError as error:
        raise ConfigError(
            f"Spark does not start ({error.getCondition()}): it needs Java 17 or newer, as `java` on the "
            "PATH or under JAVA_HOME; install it, or set relational.engine to duckdb"
        ) from None
    session.conf.set(FOLDER, str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about pandas 3, which is not passed to PySpark here
        return ibis.pyspark.connect(session)


def materialize(table: ibis.Table, name: str, replaces: ibis.Table | None) -> ibis.Table:
    """Write and read back: a plan that refers to itself several times per round would grow exponentially."""
    result = table.get_backend().read_parquet(_parts(table, name), table_name=name)
    if replaces is not None:
        SparkSession.active().catalog.dropTempView(replaces.op().name)
        shutil.rmtree(_folder() / replaces.op().name)
    return result


def batches(table: ibis.Table, rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows, in the table's order."""
    folder = _parts(table, f"batches_{uuid.uuid4().hex}")
    for part in sorted(folder.glob("part-*.parquet")):  # their numbers follow the table's order
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(rows)
        part.unlink()


def register(rows: pa.Table, backend: ibis.BaseBackend) -> ibis.Table:
    """An Arrow table as a table of the session."""
    file = _folder() / f"registered_{uuid.uuid4().hex}.parquet"
    pq.write_table(rows, file)
    return backend.read_parquet(file)


def _parts(table: ibis.Table, name: str) -> Path:
    table.to_parquet(_folder() / name)
    return _folder() / name


def _folder() -> Path:
    return Path(SparkSession.active().conf.get(FOLDER))
