"""Some files of each parser; planted defects are found, shrunk and told how to repeat; rules by hand."""

import shlex
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmsrec.core import config
from llmsrec.parsing import csv_reader, line_reader, metadata, reviews
from reliability import fuzz
from reliability.fuzzing import csv_rules, mutations, rules
from reliability.fuzzing.inputs import HEADERS
from reliability.fuzzing.rules import Verdict

FILES = {"reviews": 14, "csv": 20, "metadata": 14, "lines": 100, "gzip": 100, "settings": 100}


@pytest.mark.parametrize("parser", fuzz.PARSERS)
def test_generated_files_break_nothing(parser: str, tmp_path: Path) -> None:
    counts, failures = fuzz.fuzz(parser, 0, FILES[parser], tmp_path)
    assert failures == {}
    assert counts["files"] == FILES[parser]
    if parser in ("reviews", "csv", "metadata"):
        rejected = counts.keys() & rules.REASONS
        assert len(rejected) >= 5
        told = sum(counts[reason] for reason in (*rejected, "accepted", "blank"))
        assert told == counts["lines"] > 1000
        assert min(counts["accepted"], counts["blank"]) > 0


def test_the_command_counts_the_results_of_each_parser(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--parser", "lines", "gzip", "--files", "9", "--seed", "7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["lines", "gzip"]
    assert all("files 9" in line for line in lines)


def dropping(block: line_reader.LineBlock, rows: Any, read: Any) -> tuple[list[Any], list[int]]:
    """Of a block's lines one, unless it stands alone."""
    return [], rows[: len(rows) - (len(block) > 1)].tolist()


def planted(patch: pytest.MonkeyPatch, defect: str) -> str:
    """Puts a defect into a parser; says into which."""
    if defect == "a line is dropped":
        patch.setattr(reviews, "parse_in_bulk", dropping)
        return "reviews"
    if defect == "an empty user is taken":
        check = reviews.check_record
        patch.setattr(
            reviews,
            "check_record",
            lambda record, period: check(
                {**record, "user_id": record.get("user_id") or "?"}, period
            ),
        )
        return "reviews"
    if defect == "a rating may be infinite":
        patch.setattr(reviews, "_finite", lambda rating: rating if type(rating) is float else None)
        return "reviews"
    if defect == "texts keep what is invisible":
        patch.setattr(metadata, "clean_text", lambda value: value if type(value) is str else None)
        return "metadata"
    if defect == "numbers are off by one":
        block = line_reader._block
        patch.setattr(line_reader, "_block", lambda first, text: block(first + (first > 1), text))
        return "lines"
    if defect == "underscores are digits":
        patch.setattr(csv_reader, "INTEGER", csv_reader.re.compile(r"[-+]?[0-9_]+"))
        return "csv"
    if defect == "a damaged gzip ends early":
        patch.setattr(line_reader, "DataError", StopIteration)
        return "gzip"
    patch.setattr(config, "_NOT_YAML", (config.yaml.YAMLError, RecursionError))
    return "settings"


@pytest.mark.parametrize(
    ("defect", "largest"),
    [
        ("a line is dropped", 4),
        ("an empty user is taken", 120),
        ("a rating may be infinite", 120),
        ("texts keep what is invisible", 120),
        ("numbers are off by one", 20),
        ("underscores are digits", 120),
        ("a damaged gzip ends early", 40),
        ("PyYAML's own errors come through", 20),
    ],
)
def test_a_planted_defect_is_found_shrunk_and_reproduced(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    defect: str,
    largest: int,
) -> None:
    monkeypatch.setattr(fuzz, "FAILED", tmp_path / "failed files")
    with monkeypatch.context() as patch:
        parser = planted(patch, defect)
        assert fuzz.main(["--parser", parser, "--files", "15"]) == 1
        printed = capsys.readouterr().out
        assert "FAILED" in printed
        saved = sorted(fuzz.FAILED.iterdir())[0]
        assert len(saved.read_bytes()) <= largest
        command = next(line for line in printed.splitlines() if saved.name in line)
        arguments = shlex.split(command)[4:]
        assert fuzz.main(arguments) == 1
    assert fuzz.main(arguments) == 0


@pytest.mark.parametrize("parser", fuzz.PARSERS)
def test_a_file_depends_on_its_draws_alone(parser: str) -> None:
    make = fuzz.PARSERS[parser].make
    files = [[make(Random(f"{seed}-{number}")) for number in range(5)] for seed in (3, 3, 4)]
    assert files[0] == files[1] != files[2]


def test_shrinking_keeps_just_what_fails(tmp_path: Path) -> None:
    content = b"".join(b"line %d\n" % number for number in range(500))

    def failing(mark: bytes) -> fuzz.Parser:
        return fuzz.Parser(
            Random.randbytes, lambda content, *_: iter(["a: b"] if mark in content else [])
        )

    assert fuzz.shrunk(failing(b"7\n"), content, "a", tmp_path) == b"7\n"
    assert fuzz.shrunk(failing(b""), content, "a", tmp_path) == b""


@pytest.mark.parametrize("mutation", [*mutations.USUAL, *mutations.RARE])
def test_a_mutation_takes_any_bytes(mutation: mutations.Mutation) -> None:
    for number in range(50):
        for text in (b"", b"a", b"some text, \xff\x00\xc3\xa9"):
            assert isinstance(mutation(text, Random(number)), bytes)


TIME = 1_500_000_000_000
ROW = {"user_id": "U", "item_id": "P", "timestamp": TIME, "rating": None}


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (b"  ", Verdict()),
        (b'{"user_id": "U", "parent_asin": "P", "timestamp": 1500000000000}', Verdict(ROW)),
        (b'{"user_id": "U", "asin": "P", "timestamp": 1500000000000, "rating": true}', Verdict(ROW)),
        (b'{"user_id": "U", "parent_asin": "", "asin": "P"}', Verdict(reason="missing parent_asin")),
        (b'{"user_id": "\\ud800"}', Verdict(reason="mistyped user_id")),
        (b"[1]", Verdict(reason="not an object")),
        (b"\xff", Verdict(reason="invalid UTF-8")),
        (b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}", Verdict(loose=True)),
        (b'{"user_id": "U", "asin": "P", "timestamp": 1500000000000, "a": -NaN}', Verdict(ROW, "broken JSON")),
        (b'{"user_id": "U", "asin": "P", "timestamp": 1500000000000, "rating": Inf}', Verdict(reason="broken JSON")),
    ],
)  # fmt: skip
def test_the_rules_for_a_review(line: bytes, verdict: Verdict) -> None:
    assert rules.review(line) == verdict


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        (b"", Verdict()),
        (f"U,P,4.5,{TIME}".encode(), Verdict({**ROW, "rating": 4.5})),
        (f'"U","P", nan ,{TIME}'.encode(), Verdict(ROW)),
        (f"U,P,,{TIME},".encode(), Verdict(reason="wrong number of columns")),
        (f'U,"P" ,1,{TIME}'.encode(), Verdict(reason="broken CSV")),
        (b"U,P,1,1_500_000_000_000", Verdict(reason="mistyped timestamp")),
        (b"U,P,1,", Verdict(reason="missing timestamp")),
    ],
)
def test_the_rules_for_a_line_of_csv(line: bytes, verdict: Verdict) -> None:
    columns = ["user_id", "parent_asin", "rating", "timestamp"]
    assert csv_rules.csv_rows([line], columns, ",") == [(line, verdict)]


def test_every_header_of_the_generator_names_its_columns() -> None:
    for header, shape in HEADERS.items():
        columns = csv_rules.csv_columns(header.removeprefix("\ufeff").encode())
        assert columns is not None
        assert len(columns[0]) == len(shape.split())
