"""Kept parses: the same bytes as parsing anew, and only new files are parsed."""

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
    """Some users buy again what another file has; one line in ten is broken."""
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
    """Names of the files that a parser was asked for."""
    names: list[str] = []
    for name in ("parse_file", "parse_metadata"):
        own = getattr(module, name)

        def asked(file: Path, *rest: Any, own: Any = own) -> Any:
            names.append(file.name)
            return own(file, *rest)

        monkeypatch.setattr(module, name, asked)
    return names


def run(raw: Path, out: Path, kept: Path | None, config: InteractionsConfig = CONFIG) -> Any:
    counts = ingest(raw, out, config, rejects_file=out / "no", cache_folder=kept)
    return counts, {file.name: sha256(file) for file in out.iterdir()}


def test_what_is_new_is_parsed_and_the_result_is_that_of_parsing_all(
    raw: Path, tmp_path: Path, parsed: list[str]
) -> None:
    kept = tmp_path / "kept"
    run(raw, tmp_path / "a", kept)
    assert parsed == ["store.0001.csv", "store.jsonl.gz", "meta_store.jsonl"]
    parsed.clear()
    assert run(raw, tmp_path / "a", kept) == run(raw, tmp_path / "b", None)
    assert len(parsed) == 3  # by the run that keeps nothing

    parsed.clear()
    (raw / "store.0002.jsonl").write_bytes(reviews(20, 60))
    (raw / "meta_store.0002.jsonl").write_bytes(b'{"parent_asin": "I7", "title": "Lamp"}')
    grown = run(raw, tmp_path / "a", kept)
    assert parsed == ["store.0002.jsonl", "meta_store.0002.jsonl"]
    assert grown == run(raw, tmp_path / "b", None)
    assert len(list(kept.iterdir())) == 5


def test_another_period_or_content_or_name_is_parsed_anew_and_the_old_parse_goes(
    raw: Path, tmp_path: Path, parsed: list[str]
) -> None:
    kept, out = tmp_path / "kept", tmp_path / "out"
    run(raw, out, kept)
    parsed.clear()
    later = InteractionsConfig(date(1994, 1, 1), date(2035, 1, 1), 0.5, 0)
    assert run(raw, out, kept, later) == run(raw, tmp_path / "b", None, later)
    assert parsed[:2] == ["store.0001.csv", "store.jsonl.gz"]
    assert "meta_store.jsonl" not in parsed[:2]
    (raw / "store.0001.csv").rename(raw / "store.0003.csv")
    assert run(raw, out, kept, later) == run(raw, tmp_path / "b", None, later)
    assert len(list(kept.iterdir())) == 3


def test_of_a_run_that_broke_off_nothing_half_is_kept(raw: Path, tmp_path: Path) -> None:
    kept, out = tmp_path / "kept", tmp_path / "out"
    whole = gzip.compress(reviews(0, 20_000))
    (raw / "store.0002.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="breaks off"):
        run(raw, out, kept)
    assert len(list(kept.iterdir())) == 1  # the file before it
    (raw / "store.0002.jsonl.gz").write_bytes(whole)
    assert run(raw, out, kept) == run(raw, tmp_path / "b", None)
