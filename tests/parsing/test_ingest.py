"""From raw files to the ordered table: a written-out dataset, a slow second implementation, and the errors."""

import gzip
import hashlib
import json
import random
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmsrec.core.errors import ArtifactError, DataError
from llmsrec.core.files import sha256
from llmsrec.parsing.ingest import InteractionsConfig, ingest
from llmsrec.parsing.raw_files import raw_files
from llmsrec.relational.interactions import Interactions

DAY = 86_400_000
Purchase = tuple[str, str, int]  # user, item, day


def config(max_share: float = 0.5, tie_seed: int = 0) -> InteractionsConfig:
    return InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), max_share, tie_seed)


LAX = config()


def line(user: str, item: str, day: int, **fields: Any) -> bytes:
    return json.dumps(
        {"user_id": user, "parent_asin": item, "timestamp": day * DAY, **fields}
    ).encode()


@pytest.fixture
def run_ingest(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], pd.DataFrame]]:
    """Ingest files, given by name and lines, into tmp_path/out; returns counts and rows."""

    def run(
        files: dict[str, list[bytes]], config: InteractionsConfig = LAX
    ) -> tuple[dict[str, Any], pd.DataFrame]:
        return ingest_files(tmp_path, files, config)

    return run


def ingest_files(
    folder: Path, files: dict[str, list[bytes]], config: InteractionsConfig
) -> tuple[dict[str, Any], pd.DataFrame]:
    raw = folder / "raw"
    raw.mkdir(exist_ok=True)
    for file in raw.iterdir():
        file.unlink()
    for name, lines in files.items():
        content = b"\n".join(lines)
        (raw / name).write_bytes(
            gzip.compress(content, 1) if name.lower().endswith(".gz") else content
        )
    counts = ingest(raw, folder / "out", config, rejects_file=folder / "rejects.parquet")
    return counts, Interactions.load(folder / "out").rows.to_pandas()


def histories(rows: pd.DataFrame) -> dict[str, list[str]]:
    rows = rows.sort_values(["user_id", "position"])
    return {str(user): list(items) for user, items in rows.groupby("user_id")["item_id"]}


def test_parsing_a_small_dataset_by_hand(tmp_path: Path, run_ingest: Callable[..., Any]) -> None:
    counts, rows = run_ingest(
        {
            "b.jsonl.gz": [
                line("U", "late", 12_003, rating=5),
                line("U", "early", 12_001),
                b"broken",
                line("V", "only", 12_002),
                b"",
                line("U", "early", 12_009),  # bought again
            ],
            "c.jsonl": [
                line("V", "only", 12_002),  # the same line twice
                line("V", "next", 12_002),
                line("W", "x", 0),
            ],
            "meta_a.jsonl": [
                b'{"parent_asin": "early", "title": "Early"}',
                b'{"parent_asin": "early", "title": "Again"}',
                b'{"parent_asin": "unsold", "title": "Unsold"}',
                b"{}",
            ],
        }
    )
    assert counts["reviews"] == {
        "files": ["b.jsonl.gz", "c.jsonl"],
        "lines": 8,
        "rows": 4,
        "duplicates": 2,
        "rejects": 2,
        "rejects_by_reason": {"broken JSON": 1, "absurd timestamp": 1},
    }
    assert counts["metadata"] == {
        "files": ["meta_a.jsonl"],
        "lines": 4,
        "rows": 2,
        "duplicates": 1,
        "rejects": 1,
        "rejects_by_reason": {"missing parent_asin": 1},
    }
    assert {key: counts[key] for key in counts if key not in ("reviews", "metadata")} == {
        "interactions": 4,
        "users": 2,
        "items": 4,
        "items_without_metadata": 3,
        "tie_share": 0.5,  # of two pairs of neighbours, those of V are on the same day
        "first_day": "2002-11-10",
        "last_day": "2002-11-12",
    }
    assert histories(rows)["U"] == ["early", "late"]
    assert sorted(histories(rows)["V"]) == ["next", "only"]
    assert rows.set_index("item_id")["source_order"].to_dict() == {
        "late": 0,
        "early": 1,
        "only": 2,
        "next": 5,
    }  # fmt: skip; rows 3 and 4 are duplicates
    assert rows.set_index("item_id")["rating"].dropna().to_dict() == {"late": 5.0}
    rejects = pq.read_table(tmp_path / "out" / "rejects.parquet").to_pylist()
    assert [(reject["file"], reject["line"], reject["reason"]) for reject in rejects] == [
        ("b.jsonl.gz", 3, "broken JSON"),
        ("c.jsonl", 3, "absurd timestamp"),
    ]
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert [(item["item_id"], item["title"]) for item in items] == [
        ("early", "Early"),
        ("unsold", "Unsold"),
    ]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "interactions.parquet", "items.parquet", "rejects.parquet", "rejects_metadata.parquet"
    ]  # fmt: skip


def slow_histories(purchases: list[Purchase], tie_seed: int) -> dict[str, list[str]]:
    """The earliest purchase of each pair, by time, then by hash; with dictionaries instead of tables."""
    first: dict[tuple[str, str], int] = {}
    for user, item, day in purchases:
        first[user, item] = min(day, first.get((user, item), day))

    def key(pair: tuple[str, str]) -> tuple[int, str]:
        user, item = pair
        return first[pair], hashlib.md5(f"{tie_seed}:{user}:{item}".encode()).hexdigest()

    result: dict[str, list[str]] = {}
    for user, item in sorted(first, key=key):
        result.setdefault(user, []).append(item)
    return result


@settings(max_examples=10, deadline=None)
@given(
    purchases=st.lists(
        st.tuples(
            st.sampled_from(["U", "V", "ü:", "a\u0000b"]),
            st.sampled_from(["a", "b", "c", "d:e", "é"]),
            st.integers(12_000, 12_002),
        ),
        min_size=1,
    ),
    malformed=st.lists(st.sampled_from([b"{", b"null", b"{}", b"\xff", b"", b" "]), max_size=9),
    cut=st.integers(0, 30),
    tie_seed=st.integers(0, 3),
    shuffle=st.randoms(use_true_random=False),
)
def test_lines_are_rows_duplicates_or_rejects_and_order_is_by_time_and_hash(
    tmp_path_factory: pytest.TempPathFactory,
    purchases: list[Purchase],
    malformed: list[bytes],
    cut: int,
    tie_seed: int,
    shuffle: random.Random,
) -> None:
    lines = [line(*purchase) for purchase in purchases] + malformed
    shuffle.shuffle(lines)
    files = {"x.jsonl": lines[:cut], "y.jsonl.gz": lines[cut:]}
    whole = line(*purchases[0])  # a file needs a valid line
    purchases = [
        *purchases,
        *(purchases[0] for text in files.values() if not set(text) - {*malformed}),
    ]
    files = {
        name: text if set(text) - {*malformed} else [*text, whole] for name, text in files.items()
    }
    counts, rows = ingest_files(tmp_path_factory.mktemp("s"), files, config(1.0, tie_seed))
    assert histories(rows) == slow_histories(purchases, tie_seed)
    pairs = len({(user, item) for user, item, _ in purchases})
    rejects = sum(bool(text.strip()) for text in malformed)
    reviews = counts["reviews"]
    assert (reviews["rows"], reviews["duplicates"]) == (pairs, len(purchases) - pairs)
    assert (reviews["rejects"], reviews["lines"]) == (rejects, len(purchases) + rejects)
    assert rows["source_order"].is_unique
    assert rows["source_order"].between(0, len(purchases) - 1).all()


def tied_lines() -> list[bytes]:
    """200 users who buy `a` and `b` on the same day; some of them buy `a` again with another rating."""
    lines = []
    for user in range(200):
        lines += [line(f"U{user}", item, 12_000, rating=user % 5) for item in "ab"]
        lines += [line(f"U{user}", "a", 12_000, rating=5)] * (user % 3)
    return lines


def test_the_order_of_the_lines_changes_only_the_source_order(
    run_ingest: Callable[..., Any],
) -> None:
    lines = tied_lines()
    _, rows = run_ingest({"x.jsonl": lines})
    random.Random(1).shuffle(lines)
    _, other = run_ingest({"x.jsonl": lines[:300], "y.jsonl": lines[300:]})
    pd.testing.assert_frame_equal(
        rows.drop(columns="source_order"), other.drop(columns="source_order")
    )
    assert (rows["source_order"] != other["source_order"]).any()


def test_ties_depend_neither_on_the_item_id_nor_on_the_file(run_ingest: Callable[..., Any]) -> None:
    """`a` precedes `b` in the file and in the alphabet; a fair order puts it first in half of the cases."""
    _, rows = run_ingest({"x.jsonl": tied_lines()})
    first = sum(items == ["a", "b"] for items in histories(rows).values())
    assert 70 <= first <= 130  # 100 of 200, within four standard errors
    _, rows = run_ingest({"x.jsonl": tied_lines()}, config(tie_seed=1))
    other = sum(items == ["a", "b"] for items in histories(rows).values())
    assert 70 <= other <= 130


def test_another_tie_seed_gives_another_order_of_ties_only(run_ingest: Callable[..., Any]) -> None:
    lines = [*tied_lines(), line("U0", "c", 12_001), line("U0", "0", 11_999)]
    first, second = (
        histories(run_ingest({"x.jsonl": lines}, config(tie_seed=seed))[1]) for seed in (0, 1)
    )
    assert 50 < sum(first[user] != second[user] for user in first) < 150
    assert first["U0"][0] == second["U0"][0] == "0"
    assert first["U0"][-1] == second["U0"][-1] == "c"


def test_two_runs_write_the_same_bytes(tmp_path: Path, run_ingest: Callable[..., Any]) -> None:
    files = {"x.jsonl": tied_lines(), "meta_x.jsonl": [b'{"parent_asin": "a", "title": "A"}']}
    digests = []
    for _ in range(2):
        run_ingest(files)
        digests.append({file.name: sha256(file) for file in (tmp_path / "out").iterdir()})
    assert digests[0] == digests[1]


def test_too_many_rejects_are_an_error_and_are_written(
    tmp_path: Path, run_ingest: Callable[..., Any]
) -> None:
    files = {"x.jsonl": [line("U", "a", 12_000), b"half", line("U", "b", 12_001), b"[]", b"{"]}
    with pytest.raises(DataError) as caught:
        run_ingest(files, config(0.59))
    assert str(caught.value) == (
        "3 of 5 lines of x.jsonl are malformed (60.0%; allowed 59.0%), 2 of them as 'broken JSON', first in line 2: "
        "'half'. Remedy: expected one JSON object per line; a file of comma separated values is named .csv; correct "
        "the file, or raise interactions.max_reject_share"
    )
    rejects = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert [(row["line"], row["reason"], row["text"]) for row in rejects] == [
        (2, "broken JSON", "half"),
        (4, "not an object", "[]"),
        (5, "broken JSON", "{"),
    ]
    assert not (tmp_path / "out").exists()
    counts, _ = run_ingest(files, config(0.6))  # exactly as many as allowed
    assert counts["reviews"]["rejects"] == 3


def test_a_failed_run_keeps_the_previous_output(
    tmp_path: Path, run_ingest: Callable[..., Any]
) -> None:
    run_ingest({"x.jsonl": [line("U", "a", 12_000)]})
    before = sha256(tmp_path / "out" / "interactions.parquet")
    with pytest.raises(DataError):
        run_ingest({"x.jsonl": [b"broken"]})
    assert sha256(tmp_path / "out" / "interactions.parquet") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw", "rejects.parquet"]


GOOD = [line("U", "a", 12_000), line("U", "b", 12_001)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"x.jsonl": []}, "x.jsonl holds no line of data"),
        ({"x.csv": [b"user,item,timestamp"]}, "x.csv holds no line of data"),
        (
            {"x.jsonl": [b"x", b"y"]},
            "2 of 2 lines of x.jsonl are malformed (100.0%; allowed 100.0%), all as",
        ),
        ({"x.jsonl": GOOD, "y.jsonl": [b"x"]}, "1 of 1 lines of y.jsonl are malformed"),
        ({"x.jsonl": GOOD, "meta_x.jsonl": [b"{}"]}, "1 of 1 lines of meta_x.jsonl are malformed"),
        ({"x.jsonl": GOOD, "meta_x.csv": [b"asin;title"]}, "meta_x.csv holds no line of data"),
    ],
)
def test_a_file_without_a_valid_line_is_an_error(
    tmp_path: Path, run_ingest: Callable[..., Any], files: dict[str, list[bytes]], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        run_ingest(files, config(1.0))
    if "malformed" in message:
        (reject, *_) = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
        assert reject["file"] in message


def of(time: str) -> bytes:
    return b'{"user_id": "U", "asin": "P", "timestamp": %s}' % time.encode()


ORIGINS: list[tuple[str, bytes, str]] = [
    ("x.jsonl", of("1500000000"), "timestamps look like seconds; expected milliseconds: multiply them by 1000"),
    ("x.jsonl", of("1500000000000000"), "timestamps look like microseconds; expected milliseconds: divide"),
    ("x.jsonl", of("1500000000000000000"), "timestamps look like nanoseconds; expected milliseconds: divide"),
    ("x.jsonl", of("1500000000.5"), "expected a whole number of milliseconds since 1970"),
    ("x.jsonl", of('"2017-07-14T02:40:00Z"'), "expected a whole number of milliseconds since 1970"),
    ("x.jsonl", of("NaN"), "expected a whole number of milliseconds since 1970"),
    ("x.jsonl", of("7"), "from interactions.earliest to interactions.latest"),
    ("x.jsonl", b'{"user_id": 7}', "in JSON write numbers in quotes"),
    ("x.jsonl", b'{"customer": "U"}', "expected a field user_id or reviewerID or user"),
    ("x.jsonl", b'{"user_id": "U", "product": "P"}', "expected a field parent_asin or asin or item_id or item"),
    ("x.jsonl", b'{"user_id": "U", "item": "P", "time": 1}', "expected a field timestamp"),
    ("x.jsonl", b"user_id,item,timestamp", "a file of comma separated values is named .csv"),
    ("x.csv", b"user,item,timestamp\nU,P,2017-07-14", "expected a whole number of milliseconds"),
    ("x.csv", b"user,item,timestamp\nU,P,1,2", "a value with the separator is quoted"),
    ("x.csv", b'user,item,timestamp\nU,"P,1', "a quote at the start of a value must be closed"),
    ("x.csv", b"user,item,timestamp\nU,caf\xe9,1", "iconv -f WINDOWS-1252 -t UTF-8"),
    ("x.csv", b"user,item,timestamp\n\0\0\0", "the file is damaged, or no UTF-8 text"),
    ("x.csv", b'{"user_id": "U"}', "a file of JSON lines is named .jsonl"),
    ("x.json", b' [\n{"user_id": "U"}', "x.json is one JSON array: write one object per line"),
    ("x.csv", "user,item,timestamp\n".encode("utf-16"), "x.csv is UTF-16: save it as UTF-8"),
    ("x.csv", "user,item,timestamp\n".encode("utf-16-le"), "x.csv is UTF-16 or no text: save it as UTF-8"),
    ("x.csv", b"\x1f\x8b\x08", "x.csv is compressed with gzip: add .gz to its name"),
    ("x.csv", b"PK\x03\x04", "x.csv is a zip archive or an Excel workbook"),
    ("x.csv.gz", b"PAR1", "x.csv.gz is Parquet: write it as CSV or JSON lines"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"), ORIGINS, ids=[message[:40] for _, _, message in ORIGINS]
)
def test_the_error_says_why_no_line_of_a_file_can_be_read_and_what_to_do(
    run_ingest: Callable[..., Any], name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        run_ingest({name: content.split(b"\n")})
    assert name in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_in_all_formats_give_the_same_interactions(run_ingest: Callable[..., Any]) -> None:
    """Names in capitals and with a space, byte order marks, gzip; ids keep zeros, commas and all their digits."""
    users = ("007", "12345678901234567890", "a, b")
    lines = [line(user, item, 12_000 + n) for user in users for n, item in enumerate("ab")]
    _, expected = run_ingest(
        {"x.jsonl": lines, "meta_x.jsonl": [b'{"parent_asin": "a", "title": "A"}']}
    )
    records = [json.loads(text) for text in lines]
    cells = [
        [f'"{record["user_id"]}"', record["parent_asin"], str(record["timestamp"])]
        for record in records
    ]
    bom = "\ufeff".encode()
    for files in (
        {"My Shop.JSON.GZ": [bom + lines[0], *lines[1:]], "META_x.tsv": [b"asin\ttitle", b"a\tA"]},
        {"x.CSV": [bom + b"user,item,timestamp", *(",".join(row).encode() for row in cells)],
         "meta_x.json.gz": [bom + b"{'asin': 'a', 'title': 'A'}"]},
        {"x.tsv.gz": [bom + b"user\titem\ttimestamp", *("\t".join(row).encode() for row in cells)],
         "meta_x.csv.gz": [bom + b'"item";"title"', b'a;"A"']},
    ):  # fmt: skip
        counts, rows = run_ingest(files)
        pd.testing.assert_frame_equal(rows, expected)
        assert counts["items_without_metadata"] == 1


def test_the_error_names_a_damaged_gzip(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "good.jsonl").write_bytes(line("U", "a", 12_000))
    (raw / "torn.jsonl.gz").write_bytes(gzip.compress(line("V", "a", 12_000))[:-9])
    with pytest.raises(DataError, match=r"torn\.jsonl\.gz breaks off"):
        ingest(raw, tmp_path / "out", config(), rejects_file=tmp_path / "rejects.parquet")
    assert not (tmp_path / "out").exists()


def csv(*rows: Purchase) -> list[bytes]:
    return [b"user,item,timestamp"] + [f"{u},{i},{day * DAY}".encode() for u, i, day in rows]


def test_a_ready_split_keeps_its_parts_whatever_the_times(run_ingest: Callable[..., Any]) -> None:
    _, rows = run_ingest(
        {
            "S.test.csv": csv(("U", "t", 12_000)),
            "S.train.csv": csv(("U", "b", 12_002), ("U", "a", 12_001)),
            "S.valid.csv": csv(("U", "v", 12_005), ("U", "a", 11_000)),  # `a` is in train
        }
    )
    rows = rows.sort_values("position")
    assert list(rows["item_id"]) == ["a", "b", "v", "t"]
    assert list(rows["part"]) == [0, 0, 1, 2]
    assert list(rows["source_order"]) == [
        1,
        0,
        2,
        4,
    ]  # train, then valid, then test; the second `a` was dropped


def test_titles_of_csv_rows_are_used_where_metadata_is_missing(
    tmp_path: Path, run_ingest: Callable[..., Any]
) -> None:
    run_ingest(
        {
            "x.csv": [
                b"user,item,timestamp,title",
                f"U,known,{12_000 * DAY},From the row".encode(),
                f"U,new,{12_000 * DAY},Only here".encode(),
            ],
            "meta_x.jsonl": [b'{"parent_asin": "known", "title": "From metadata"}'],
        }
    )
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert [(item["item_id"], item["title"], item["description"]) for item in items] == [
        ("known", "From metadata", None),
        ("new", "Only here", None),
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["meta_x.jsonl"], "no review file"),
        (["x.jsonl", "x.parquet"], r"x\.parquet.*expected reviews as \.jsonl, \.json"),
        (["x.jsonl", "x.jsonl.zst"], r"x\.jsonl\.zst.*expected reviews as"),
        (["x.jsonl", "y.train.csv"], "mixes a ready split"),
        ([], "no review file"),
    ],
)
def test_a_folder_with_unsupported_files_is_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        raw_files(tmp_path)


def test_files_have_a_fixed_order_and_hidden_ones_are_ignored(tmp_path: Path) -> None:
    for name in ("A.valid.csv", "A.test.csv.gz", "meta_A.jsonl", "A.train.csv", ".gitignore"):
        (tmp_path / name).touch()
    reviews, metadata = raw_files(tmp_path)
    assert [file.name for file in reviews] == ["A.train.csv", "A.valid.csv", "A.test.csv.gz"]
    assert [file.name for file in metadata] == ["meta_A.jsonl"]


def test_the_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        raw_files(tmp_path / "nowhere")
    with pytest.raises(ArtifactError, match=r"interactions\.parquet is missing"):
        Interactions.load(tmp_path)
    (tmp_path / "interactions.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ArtifactError, match=r"interactions\.parquet is damaged"):
        Interactions.load(tmp_path)


def test_an_invalid_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="earliest must be before latest"):
        InteractionsConfig(date(2020, 1, 1), date(2020, 1, 1), 0.1, 0)
