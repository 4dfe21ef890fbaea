"""A few thousand inputs of each parser; planted defects are found, shrunk and told how to repeat; rules by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llmsrec.core import config
from llmsrec.parsing import csv_reader, line_reader, metadata, reviews
from reliability import fuzz
from reliability.fuzzing import csv_rules, mutations, rules
from reliability.fuzzing.csv_inputs import HEADERS, SHAPES
from reliability.fuzzing.json_reader import NotJson, Reader
from reliability.fuzzing.rules import Verdict
from reliability.fuzzing.shrink import shrink
from reliability.fuzzing.targets import TARGETS, Batch

FEW = {"reviews": 2000, "csv": 3200, "metadata": 2000, "lines": 300, "gzip": 300, "settings": 150}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The command's exit code, and what it reports of one parser."""

    def run_one(parser: str, *more: str) -> tuple[int, dict[str, Any]]:
        report, failures = tmp_path / "report.json", tmp_path / "failures"
        code = fuzz.main(
            ["--parser", parser, "--report", str(report), "--failures", str(failures), *more]
        )
        (found,) = json.loads(report.read_text())["parsers"]
        return code, found

    return run_one


@pytest.mark.parametrize("parser", TARGETS)
def test_a_few_thousand_inputs_break_nothing(run: Callable[..., Any], parser: str) -> None:
    code, found = run(parser, "--inputs", str(FEW[parser]))
    assert (code, found["failed"], found["failures"]) == (0, 0, [])
    assert found["inputs"] == FEW[parser]
    assert found["distinct_mutations"] == len(found["mutations"]) >= 15
    if found["unit"] == "line":
        told = sum(count for reason, count in found["rejects"].items() if "(file)" not in reason)
        assert found["lines"] == found["accepted"] + told + found["blank"] >= found["inputs"]
        assert found["rejects"].keys() - {"(file) header"} <= rules.REASONS
        assert min(found["accepted"], told, found["blank"]) > 0
    else:
        assert found["files"] == found["inputs"]


def test_the_whole_command_reports_every_parser(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    assert fuzz.main(["--inputs", "1000", "--seed", "7", "--report", str(report)]) == 0
    found = json.loads(report.read_text())
    assert found["seed"] == 7
    assert [parser["parser"] for parser in found["parsers"]] == list(TARGETS)
    assert sum(parser["inputs"] for parser in found["parsers"]) == 1000
    printed = capsys.readouterr().out
    assert all(name in printed for name in TARGETS)
    assert "FAILED" not in printed


def test_a_run_stops_after_its_minutes(run: Callable[..., Any]) -> None:
    code, found = run("lines", "--minutes", "0.0001", "--inputs", "1000")
    assert (code, found["inputs"]) == (0, 100)  # a batch


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
    patch.setattr(config, "_NOT_YAML", (config.yaml.YAMLError, ValueError, RecursionError))
    return "settings"


@pytest.mark.parametrize(
    ("defect", "largest"),
    [
        ("a line is dropped", 3),
        ("an empty user is taken", 120),
        ("a rating may be infinite", 120),
        ("texts keep what is invisible", 120),
        ("numbers are off by one", 20),
        ("underscores are digits", 120),
        ("a damaged gzip ends early", 40),
        ("PyYAML's own errors come through", 20),
    ],
)
def test_a_planted_defect_is_found_shrunk_and_repeated(
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    defect: str,
    largest: int,
) -> None:
    with monkeypatch.context() as patch:
        parser = planted(patch, defect)
        code, found = run(parser, "--inputs", "100" if parser == "settings" else "1200")
        assert code == 1
        failure = found["failures"][0]
        kept = Path(failure["file"])
        assert 0 <= len(kept.read_bytes()) <= largest
        assert failure["replay"] in capsys.readouterr().out
        assert fuzz.main(failure["replay_shrunk"].split()[3:]) == 1
        patch.setattr(fuzz, "shrink", lambda content, fails: content)  # it has been seen once
        again, found = run(parser, *failure["replay"].split()[5:])
        assert again == 1
        assert fuzz.kind_of(found["failures"][0]["problem"]) == fuzz.kind_of(failure["problem"])
    assert fuzz.main(failure["replay_shrunk"].split()[3:]) == 0


@pytest.mark.parametrize("parser", TARGETS)
def test_an_input_depends_on_seed_and_number_alone(parser: str) -> None:
    target = TARGETS[parser]
    assert target.input(3, 41) == target.input(3, 41) != target.input(4, 41)
    whole = Batch(target, 3, 0, 50).contents()
    assert whole == Batch(target, 3, 0, 50).contents()
    (batch,) = target.batches(3, 41, 1)
    assert target.input(3, 41)[0] in batch.contents()[0][0]


def test_batches_cover_all_numbers_once() -> None:
    batches = list(fuzz.schedule(list(TARGETS.values()), 0, 30, 5000))
    for target in TARGETS.values():
        own = [batch for batch in batches if batch.target is target]
        numbers = [number for batch in own for number in range(batch.start, batch.stop)]
        assert numbers == list(range(30, 30 + len(numbers)))
        assert {batch.start for batch in own[1:]} <= set(range(0, 5000, target.batch))
    assert sum(batch.stop - batch.start for batch in batches) == 5000


def test_shrinking_keeps_just_what_fails() -> None:
    content = b"".join(b"line %d\n" % number for number in range(500))
    assert shrink(content, lambda text: b"7" in text and b"\n" in text) == b"7\n"
    assert shrink(content, lambda text: True) == b""


@pytest.mark.parametrize("name", mutations.ALL)
def test_a_mutation_takes_any_bytes(name: str) -> None:
    for number in range(50):
        draws = Random(number)
        for text in (b"", b"a", b"some text, \xff\x00\xc3\xa9"):
            assert isinstance(mutations.ALL[name](text, draws), bytes)


JSON_TEXTS = [
    "{}", "[]", ' {"a" : [1, 2.5, -3e2, {"b": null}], "c": true} ', '"\\ud83c\\udfb8 \\u00e9"', '"\\ud83c"',
    "NaN", "-Infinity", "", "{", "[1,]", '{"a":1,}', '{"a" 1}', "{a:1}", "01", "1.", "--1", '"\t"', '"\\x"',
    "[1 2]", "]", '{"a":1}{}', ":", "[,1]", '{"a":}', "nul", '{1:2}', "[}", "{]", '"a', "\ufeff{}", "\x0b1",
    "Inf", "-NaN", '{"a":{"b":[{}]}}', '{"a":1,"a":2}',
]  # fmt: skip


@pytest.mark.parametrize("text", JSON_TEXTS)
def test_the_second_json_reader_reads_what_the_first_does(text: str) -> None:
    try:
        expected = repr(json.loads(text))
    except ValueError:
        with pytest.raises(NotJson):
            Reader().read(text)
    else:
        assert repr(Reader().read(text)) == expected


def test_the_second_json_reader_needs_no_stack() -> None:
    reader = Reader()
    reader.read("[" * 20_000 + "]" * 20_000)
    assert reader.depth == 20_000


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
        (b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}", Verdict(reason="missing user_id", loose=True)),
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
    assert csv_rules.csv_rows([line + b"\n"], columns, ",") == [(line, verdict)]


def test_every_header_of_the_generator_has_a_line_of_its_shape() -> None:
    for header, shape in zip(HEADERS, SHAPES, strict=True):
        columns = csv_rules.csv_columns(header.removeprefix("\ufeff").encode())
        assert columns is not None
        assert len(columns[0]) == len(shape)
