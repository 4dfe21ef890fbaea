"""DuckDB and Spark in local mode run one program to the same rows; the splits are the same to the byte."""

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
from llmsrec.parsing.ingest import PARSED, InteractionsConfig, ingest, order_interactions
from llmsrec.preprocessing.candidates import draw_candidates
from llmsrec.preprocessing.k_core import iterative_core
from llmsrec.preprocessing.splitting import split, statistics
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
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # the better compiler never pays off here
CONFIGS: dict[str, dict[str, Any]] = {
    "leave one out": {},
    "ready split, single pass, sampled": {"kcore": "single_pass", "sample_rate": 0.6},
    "iterative, sampled": {"sample_rate": 0.7, "seed": 3, "max_users": 5},
    "one cut in time": {"split": "global_temporal", "temporal_target": "successive"},
}


@pytest.fixture(scope="session")
def connect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """One connection of each engine for all tests, opened when first asked for."""
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
                opened[name].raw_sql("SET spark.sql.shuffle.partitions=2")  # small stores
        return opened[name]

    yield connection
    for context in used:
        context.__exit__(None, None, None)
    if ABSENT is None and "spark" in opened:
        _end_of_java()


def _end_of_java() -> None:
    """PySpark leaves its sockets to the garbage collector, which names them in another test."""
    from pyspark import SparkContext

    SparkContext._gateway.shutdown()
    SparkContext._gateway.proc.stdin.close()
    SparkContext._gateway.proc.wait(timeout=20)
    SparkContext._gateway = SparkContext._jvm = None
    gc.collect()


def moved(interactions: Interactions, connection: Any) -> Interactions:
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
def test_the_twelve_users_are_cut_alike(name: str, connect: Any, tmp_path: Path) -> None:
    config = splits_config(
        **{"user_threshold": 2, "item_threshold": 2, "negatives": 0, "generation_negatives": 0},
        **CONFIGS[name],
    )
    saved = []
    for engine_name in ("duckdb", "spark"):
        splits = split(moved(twelve(), connect(engine_name)), config)
        saved.append((digests(splits, tmp_path / engine_name), statistics(splits)))
    assert saved[0] == saved[1]


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
def test_any_small_store_is_ordered_and_cut_alike(
    purchases: list[tuple[Any, ...]], connect: Any
) -> None:
    """Capitals, accents, white space and other scripts sort by their bytes, nulls last; ties by the same hash."""
    users, items, days, ratings, parts = zip(*purchases, strict=True)
    times = [(12_000 + day) * DAY for day in days]
    columns = [users, items, times, ratings, range(len(users)), parts]
    arrays = [pa.array(c, f.type) for c, f in zip(columns, PARSED, strict=True)]
    parsed = pa.table(arrays, schema=PARSED)
    found = []
    for name in ("duckdb", "spark"):
        table = order_interactions(register(parsed, connect(name)), tie_seed=7)
        rows = to_arrow(table.order_by(["user_id", "position"]))
        try:
            core = iterative_core(register(rows, connect(name)), 2, 2)
            left = to_arrow(core.order_by(["user_id", "position"]))
        except DataError:
            left = None
        found.append((rows, left))
    assert found[0] == found[1]
    assert found[0][0].num_rows == len({purchase[:2] for purchase in purchases})


@on_spark
def test_the_sample_store_is_built_alike(connect: Any, tmp_path: Path) -> None:
    """From raw lines to candidates: counts, rows, and every byte that others read."""
    raw = tmp_path / "raw"
    raw.mkdir()
    sample.generate(raw)
    counts, rows, saved = [], [], []
    for relational in (DUCKDB, SPARK):
        out = tmp_path / relational.engine
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llmsrec.parsing.ingest.engine", shared(connect))
            rejects = tmp_path / "rejects.parquet"
            counts.append(ingest(raw, out, CONFIG, rejects_kept=rejects, relational=relational))
        rows.append(pq.read_table(out / "interactions.parquet"))
        config = splits_config(user_threshold=5, item_threshold=5, generation_negatives=19)
        interactions = Interactions.load(out, connect(relational.engine))
        saved.append(digests(split(interactions, config), tmp_path / f"{relational.engine}-splits"))
    assert counts[0] == counts[1]
    assert rows[0].cast(rows[1].schema).equals(rows[1])  # DuckDB also notes which have no null
    assert saved[0] == saved[1]


def shared(connect: Any) -> Any:
    """The session's connection in the place of a new one."""
    from contextlib import contextmanager

    @contextmanager
    def engine(config: RelationalConfig, scratch: Path) -> Iterator[Any]:
        yield connect(config.engine)

    return engine


@pytest.mark.parametrize("name", ["duckdb", pytest.param("spark", marks=on_spark)])
def test_rows_keep_their_order_and_types_in_whatever_pieces(
    name: str, connect: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_engine, "BATCH", 100)
    rows = pa.table({"n": [*range(1000, 0, -1)], "text": [None, *map(str, range(999))]})
    table = materialize(register(rows, connect(name)).order_by("n"))
    expected = rows.sort_by("n")
    pieces = list(batches(table.order_by("n")))
    assert len(pieces) > 1
    assert pa.Table.from_batches(pieces).equals(expected)
    write(table.order_by("n"), tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").cast(expected.schema).equals(expected)


def test_an_engine_leaves_nothing_behind(tmp_path: Path) -> None:
    with engine(DUCKDB, tmp_path / "scratch") as connection:
        materialize(
            register(pa.table({"n": [2]}), connection)
        )  # held by nobody when the connection closes
        assert to_arrow(register(pa.table({"n": [1]}), connection)).to_pydict() == {"n": [1]}
        assert len(list((tmp_path / "scratch").iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_true_core_has_no_more_rounds_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain falls from its end; what is left at the fixed point is read once more and no further."""
    rounds = []

    def counted(table: ibis.Table, **others: Any) -> ibis.Table:
        rounds.append(table)
        return materialize(table, **others)

    monkeypatch.setattr("llmsrec.preprocessing.k_core.kept", counted)
    core = {"A": "xy", "B": "xy", "C": "yz", "D": "zw"}  # w, then D, then z, then C
    rows = interactions_of({user: list(items) for user, items in core.items()}).rows
    left = iterative_core(rows, 2, 2).to_pandas()
    assert sorted(zip(left["user_id"], left["item_id"], strict=True)) == [
        (user, item) for user in "AB" for item in "xy"
    ]
    assert len(rounds) == 3


def test_candidates_do_not_depend_on_how_many_rows_are_worked_on(
    monkeypatch: pytest.MonkeyPatch, markov_splits: Any
) -> None:
    import numpy as np

    labels = np.arange(markov_splits.num_items + 1) // 2  # half of them clash
    found = []
    for chunk in (1, 7, 20_000):
        monkeypatch.setattr("llmsrec.preprocessing.candidates.CHUNK", chunk)
        targets = markov_splits.targets["test"]
        drawn = draw_candidates(
            markov_splits.sequences,
            targets,
            np.arange(0, len(targets), 2),
            7,
            labels,
            np.random.default_rng(5),
        )
        found.append((drawn.items.tolist(), drawn.target_columns.tolist()))
    assert found[0] == found[1] == found[2]


# --- what cannot be ---


def test_spark_wants_a_heap_that_it_starts_with() -> None:
    with pytest.raises(ConfigError, match="memory_mb of at least 512"):
        from_mapping(
            RelationalConfig, {"engine": "spark", "memory_mb": 100, "threads": 1}, "relational"
        )


def test_without_pyspark_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import llmsrec.data

    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    monkeypatch.delitem(sys.modules, "llmsrec.relational.spark", raising=False)
    monkeypatch.delattr(llmsrec.data, "spark", raising=False)
    with (
        pytest.raises(ConfigError, match=r"pip install .*'llmsrec\[spark\]'"),
        engine(SPARK, tmp_path),
    ):
        pass
    assert not tmp_path.exists()


@pytest.mark.skipif(find_spec("pyspark") is None, reason="pyspark is not installed")
def test_without_java_the_error_says_what_to_install(tmp_path: Path) -> None:
    """In a process of its own: one that has started Java once does not look for it again."""
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
    for tool in ("bash", "dirname", "ps"):  # what Spark's own launcher needs
        if found := shutil.which(tool):
            (tmp_path / tool).symlink_to(found)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "ConfigError: Spark does not start" in done.stderr
    assert "it needs Java 17 or newer" in done.stderr
