"""The parse cache: only new files are parsed, and the result equals that of parsing all files."""

import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from llmsrec.core.errors import DataError
from llmsrec.core.files import sha256
from llmsrec.parsing import ingest as module
from llmsrec.parsing.ingest import InteractionsConfig, ingest

CONFIG = InteractionsConfig(date(1995, 7, 16), date(2035, 1, 1), 0.5, 0)
DAY = 86_400_000


def reviews(first: int, count: int) -> bytes:
    """Some purchases are in another file too; one line in ten is malformed."""
    lines = [
        {"user_id": f"U{n % 7}", "parent_asin": f"I{n % 13}", "timestamp": (10_000 + n) * DAY}
        if n % 10
        else {"user_id": f"U{n}"}
        for n in range(first, first + count)
    ]
    return b"\n".join(json.dumps(line).encode() for line in lines)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "store.jsonl.gz").write_bytes(gzip.compress(reviews(0, 40), mtime=0))
    (folder / "store.0001.csv").write_bytes(
        b'user_id,parent_asin,timestamp,title\nU1,I3,864000000000,Kettle\nU9,I99,864000000000,"Tea, green"\nU,,1,\n'
    )
    items = [{"parent_asin": f"I{n}", "title": f"Thing {n}"} for n in range(5)]
    (folder / "meta_store.jsonl").write_bytes(b"\n".join(json.dumps(i).encode() for i in items))
    return folder


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were parsed."""
    names: list[str] = []
    parse = module.parse_file

    def record(file: Path, dates: Any) -> Any:
        names.append(file.name)
        return parse(file, dates)

    monkeypatch.setattr(module, "parse_file", record)
    return names


def run(raw: Path, out: Path, cache: Path | None, config: InteractionsConfig = CONFIG) -> Any:
    counts = ingest(raw, out, config, rejects_file=out / "rejects", cache_folder=cache)
    return counts, {file.name: sha256(file) for file in out.iterdir()}


def test_only_new_files_are_parsed_and_the_result_is_the_same(
    raw: Path, tmp_path: Path, parsed: list[str]
) -> None:
    cache = tmp_path / "cache"
    run(raw, tmp_path / "a", cache)
    assert parsed == ["store.0001.csv", "store.jsonl.gz", "meta_store.jsonl"]
    parsed.clear()
    assert run(raw, tmp_path / "a", cache) == run(raw, tmp_path / "b", None)
    assert len(parsed) == 3  # by the run without a cache

    parsed.clear()
    (raw / "store.0002.jsonl").write_bytes(reviews(20, 60))
    (raw / "meta_store.0002.jsonl").write_bytes(b'{"parent_asin": "I7", "title": "Lamp"}')
    result = run(raw, tmp_path / "a", cache)
    assert parsed == ["store.0002.jsonl", "meta_store.0002.jsonl"]
    assert result == run(raw, tmp_path / "b", None)
    assert len(list(cache.iterdir())) == 5


def test_other_dates_content_or_name_are_parsed_again_and_the_old_entry_is_removed(
    raw: Path, tmp_path: Path, parsed: list[str]
) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    run(raw, out, cache)
    parsed.clear()
    later = InteractionsConfig(date(1994, 1, 1), date(2035, 1, 1), 0.5, 0)
    assert run(raw, out, cache, later) == run(raw, tmp_path / "b", None, later)
    assert parsed[:2] == ["store.0001.csv", "store.jsonl.gz"]
    assert "meta_store.jsonl" not in parsed[:2]
    (raw / "store.0001.csv").rename(raw / "store.0003.csv")
    assert run(raw, out, cache, later) == run(raw, tmp_path / "b", None, later)
    assert len(list(cache.iterdir())) == 3


def test_a_failed_parse_leaves_no_entry(raw: Path, tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    content = gzip.compress(reviews(0, 20_000))
    (raw / "store.0002.jsonl.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="breaks off"):
        run(raw, out, cache)
    assert len(list(cache.iterdir())) == 1  # of the file before
    (raw / "store.0002.jsonl.gz").write_bytes(content)
    assert run(raw, out, cache) == run(raw, tmp_path / "b", None)
