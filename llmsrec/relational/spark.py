"""Spark in local mode: the only module that knows it. What is kept and what is fetched passes through Parquet parts.

Collecting would hold all rows twice, in the JVM and here; parts are written by many tasks and read in order, in pieces.
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

FOLDER = "llmsrec.scratch"  # a setting of our own in the session: where parts lie


def connect(folder: Path, memory_mb: int, threads: int | str) -> ibis.BaseBackend:
    """A session that listens on this machine only and writes under `folder`."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # else it looks for a network of its own
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
        warnings.simplefilter("ignore")  # of pandas 3, which nothing here hands to PySpark
        return ibis.pyspark.connect(session)


def materialize(table: ibis.Table, name: str, instead: ibis.Table | None) -> ibis.Table:
    """Written and read back: a plan that names itself several times a round would double and double."""
    made = table.get_backend().read_parquet(_parts(table, name), table_name=name)
    if instead is not None:
        SparkSession.active().catalog.dropTempView(instead.op().name)
        shutil.rmtree(_folder() / instead.op().name)
    return made


def batches(table: ibis.Table, rows: int) -> Iterator[pa.RecordBatch]:
    folder = _parts(table, f"batches_{uuid.uuid4().hex}")
    for part in sorted(folder.glob("part-*.parquet")):  # numbered in the table's order
        with pq.ParquetFile(part) as file:
            yield from file.iter_batches(rows)
        part.unlink()


def register(rows: pa.Table, backend: ibis.BaseBackend) -> ibis.Table:
    file = _folder() / f"lent_{uuid.uuid4().hex}.parquet"
    pq.write_table(rows, file)
    return backend.read_parquet(file)


def _parts(table: ibis.Table, name: str) -> Path:
    table.to_parquet(_folder() / name)
    return _folder() / name


def _folder() -> Path:
    return Path(SparkSession.active().conf.get(FOLDER))
