"""DuckDB and Spark in local mode give the same rows and byte-identical splits."""

import gc
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmsrec.core.config import from_mapping
from llmsrec.core.errors import ConfigError, DataError
from llmsrec.core.files import sha256
from llmsrec.parsing.ingest import PARSED_SCHEMA, InteractionsConfig, ingest, order_interactions
from llmsrec.preprocessing.candidates import draw_candidates
from llmsrec.preprocessing.k_core import iterative_core
from llmsrec.preprocessing.splitting import split, split_statistics
from llmsrec.relational import sql_engine
from llmsrec.relational.interactions import Interactions
from llmsrec.relational.sql_engine import (
    RelationalConfig,
    batches,
    engine,
    materialize,
    register,
    to_arrow,
    write,
)
from llmsrec.sources import sample
from tests.conftest import DAY, interactions_of, splits_config
from tests.preprocessing.test_k_core import TWELVE

DUCKDB = RelationalConfig("duckdb", 250, 1)
SPARK = RelationalConfig("spark", 1024, 1)
CONFIG = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.05, 0)
ABSENT = (
    "pyspark is not installed (the extra `spark`)"
    if find_spec("pyspark") is None
    else "there is no java on the PATH"
    if shutil.which("java") is None
    else None
)
on_spark = pytest.mark.skipif(ABSENT is not None, reason=ABSENT or "")
QUICK_START = (
    "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # the optimizing compiler does not pay off here
)
CONFIGS: dict[str, dict[str, Any]] = {
    "leave one out": {},
    "ready split, single pass, sampled": {"kcore": "single_pass", "sample_rate": 0.6},
    "iterative, sampled": {"sample_rate": 0.7, "seed": 3, "max_users": 5},
    "global temporal": {"split": "global_temporal", "temporal_target": "successive"},
}


@pytest.fixture(scope="session")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """One connection per engine for all tests, opened on first use."""
    opened: dict[str, Any] = {}
    used: list[Any] = []

    def connection(name: str) -> Any:
        if name not in opened:
            config = SPARK if name == "spark" else DUCKDB
            used.append(engine(config, tmp_path_factory.mktemp(name)))
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("JAVA_TOOL_OPTIONS", QUICK_START)
                opened[name] = used[-1].__enter__()
            if name == "spark":
                opened[name].raw_sql("SET spark.sql.shuffle.partitions=2")  # for small tables
        return opened[name]

    yield connection
    for context in used:
        context.__exit__(None, None, None)
    if ABSENT is None and "spark" in opened:
        _stop_java()


def _stop_java() -> None:
    """Close PySpark's sockets here; the garbage collector would report them in another test."""
    from pyspark import SparkContext

    SparkContext._gateway.shutdown()
    SparkContext._gateway.proc.stdin.close()
    SparkContext._gateway.proc.wait(timeout=240)
    SparkContext._gateway = SparkContext._jvm = None
    gc.collect()


def on_engine(interactions: Interactions, connection: Any) -> Interactions:
    return Interactions(
        register(to_arrow(interactions.rows), connection),
        register(to_arrow(interactions.items), connection),
    )


def twelve() -> Interactions:
    return interactions_of({user: list(items) for user, items in TWELVE.items()})


def digests(splits: Any, folder: Path) -> dict[str, str]:
    splits.save(folder)
    return {file.name: sha256(file) for file in sorted(folder.iterdir())}


@on_spark
@pytest.mark.parametrize("name", CONFIGS)
def test_both_engines_split_the_twelve_users_alike(name: str, connect: Any, tmp_path: Path) -> None:
    config = splits_config(
        **{"user_threshold": 2, "item_threshold": 2, "negatives": 0, "generation_negatives": 0},
        **CONFIGS[name],
    )
    results = []
    for engine_name in ("duckdb", "spark"):
        splits = split(on_engine(twelve(), connect(engine_name)), config)
        results.append((digests(splits, tmp_path / engine_name), split_statistics(splits)))
    assert results[0] == results[1]


PURCHASES = st.lists(
    st.tuples(
        st.sampled_from(["u", "U", "ü", "u1", "u10", ""]),
        st.sampled_from(["a", "B", "é", "a ", "漢", "a0"]),
        st.integers(0, 3),
        st.sampled_from([None, 1.0, 5.0]),
        st.sampled_from([None, 0, 1, 2]),
    ),
    min_size=1,
    max_size=30,
)


@on_spark
@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(purchases=PURCHASES)
def test_both_engines_order_and_filter_any_interactions_alike(
    purchases: list[tuple[Any, ...]], connect: Any
) -> None:
    """Capitals, accents, white space and other scripts are sorted by bytes, nulls last; ties by the same hash."""
    users, items, days, ratings, parts = zip(*purchases, strict=True)
    times = [(12_000 + day) * DAY for day in days]
    columns = [users, items, times, ratings, range(len(users)), parts]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, PARSED_SCHEMA, strict=True)]
    parsed = pa.table(arrays, schema=PARSED_SCHEMA)
    results = []
    for name in ("duckdb", "spark"):
        table = order_interactions(register(parsed, connect(name)), tie_seed=7)
        rows = to_arrow(table.order_by(["user_id", "position"]))
        try:
            core = iterative_core(register(rows, connect(name)), 2, 2)
            remaining = to_arrow(core.order_by(["user_id", "position"]))
        except DataError:
            remaining = None
        results.append((rows, remaining))
    assert results[0] == results[1]
    assert results[0][0].num_rows == len({purchase[:2] for purchase in purchases})


@on_spark
def test_both_engines_build_the_sample_alike(connect: Any, tmp_path: Path) -> None:
    """From raw lines to candidates: counts, rows and every byte of the splits."""
    raw = tmp_path / "raw"
    raw.mkdir()
    sample.write_sample(raw)
    counts, rows, saved = [], [], []
    for relational in (DUCKDB, SPARK):
        out = tmp_path / relational.engine
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llmsrec.parsing.ingest.engine", shared(connect))
            rejects = tmp_path / "rejects.parquet"
            counts.append(ingest(raw, out, CONFIG, rejects_file=rejects, relational=relational))
        rows.append(pq.read_table(out / "interactions.parquet"))
        config = splits_config(user_threshold=5, item_threshold=5, generation_negatives=19)
        interactions = Interactions.load(out, connect(relational.engine))
        saved.append(digests(split(interactions, config), tmp_path / f"{relational.engine}-splits"))
    assert counts[0] == counts[1]
    assert rows[0].cast(rows[1].schema).equals(rows[1])  # DuckDB marks columns without nulls
    assert saved[0] == saved[1]


def shared(connect: Any) -> Any:
    """The connection of the test session instead of a new one."""
    from contextlib import contextmanager

    @contextmanager
    def engine(config: RelationalConfig, scratch: Path) -> Iterator[Any]:
        yield connect(config.engine)

    return engine


@pytest.mark.parametrize("name", ["duckdb", pytest.param("spark", marks=on_spark)])
def test_batches_keep_order_and_types(
    name: str, connect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_engine, "BATCH_ROWS", 100)
    rows = pa.table({"n": [*range(1000, 0, -1)], "text": [None, *map(str, range(999))]})
    table = materialize(register(rows, connect(name)).order_by("n"))
    expected = rows.sort_by("n")
    parts = list(batches(table.order_by("n")))
    assert len(parts) > 1
    assert pa.Table.from_batches(parts).equals(expected)
    write(table.order_by("n"), tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").cast(expected.schema).equals(expected)


def test_an_engine_removes_its_files(tmp_path: Path) -> None:
    with engine(DUCKDB, tmp_path / "scratch") as connection:
        materialize(
            register(pa.table({"n": [2]}), connection)
        )  # without a reference when the connection closes
        assert to_arrow(register(pa.table({"n": [1]}), connection)).to_pydict() == {"n": [1]}
        assert len(list((tmp_path / "scratch").iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_k_core_stops_at_the_fixed_point(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain is dropped from its end, and one more round confirms the fixed point."""
    rounds = []

    def count(table: ibis.Table, **arguments: Any) -> ibis.Table:
        rounds.append(table)
        return materialize(table, **arguments)

    monkeypatch.setattr("llmsrec.preprocessing.k_core.materialize", count)
    histories = {"A": "xy", "B": "xy", "C": "yz", "D": "zw"}  # w, then D, then z, then C
    rows = interactions_of({user: list(items) for user, items in histories.items()}).rows
    core = iterative_core(rows, 2, 2).to_pandas()
    assert sorted(zip(core["user_id"], core["item_id"], strict=True)) == [
        (user, item) for user in "AB" for item in "xy"
    ]
    assert len(rounds) == 3


def test_candidates_do_not_depend_on_the_chunk_size(
    monkeypatch: pytest.MonkeyPatch, markov_splits: Any
) -> None:
    import numpy as np

    labels = np.arange(markov_splits.num_items + 1) // 2  # pairs of items share a label
    results = []
    for chunk in (1, 7, 20_000):
        monkeypatch.setattr("llmsrec.preprocessing.candidates.CHUNK_ROWS", chunk)
        targets = markov_splits.targets["test"]
        drawn = draw_candidates(
            markov_splits.sequences,
            targets,
            np.arange(0, len(targets), 2),
            7,
            labels,
            np.random.default_rng(5),
        )
        results.append((drawn.items.tolist(), drawn.target_columns.tolist()))
    assert results[0] == results[1] == results[2]


# --- errors ---


def test_too_small_a_heap_for_spark_is_an_error() -> None:
    with pytest.raises(ConfigError, match="memory_mb of at least 512"):
        from_mapping(
            RelationalConfig, {"engine": "spark", "memory_mb": 100, "threads": 1}, "relational"
        )


def test_without_pyspark_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import llmsrec.relational

    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    monkeypatch.delitem(sys.modules, "llmsrec.relational.spark", raising=False)
    monkeypatch.delattr(llmsrec.relational, "spark", raising=False)
    with (
        pytest.raises(ConfigError, match=r"pip install .*'llmsrec\[spark\]'"),
        engine(SPARK, tmp_path),
    ):
        pass
    assert not tmp_path.exists()


@pytest.mark.skipif(find_spec("pyspark") is None, reason="pyspark is not installed")
def test_without_java_the_error_says_what_to_install(tmp_path: Path) -> None:
    """In a child process, because a process that has started Java once does not search for it again."""
    import os
    import subprocess
    import sys

    code = (
        "from pathlib import Path; from llmsrec.relational.sql_engine import *\n"
        "with engine(RelationalConfig('spark', 600, 1), Path('scratch')): pass"
    )
    environment = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"}
    environment |= {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    bash = shutil.which("bash")
    assert bash is not None
    for tool in ("bash", "dirname", "ps"):  # needed by Spark's launcher
        if path := shutil.which(tool):
            (tmp_path / tool).symlink_to(path)
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 1
    assert "ConfigError: Spark does not start" in process.stderr
    assert "it needs Java 17 or newer" in process.stderr
