"""A stage that fails prints one line, exits with 1, and leaves no partial output."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmsrec import stages
from llmsrec.data.splits import Splits
from llmsrec.preprocessing.splitting import split
from llmsrec.stages import (
    build_backbone,
    compare_champion,
    download,
    evaluate,
    export_embeddings,
    fit_recommender,
    ingest,
    pack_bundle,
    recommend_all,
    train_student,
    train_teacher,
)
from llmsrec.stages import split as split_stage
from tests.conftest import DAY, interactions_of, markov_histories, splits_config

# stage -> its section of params.yaml, its entry, its arguments in the working folder
STAGES: dict[str, tuple[str, Any, str]] = {
    "download": ("datasets", download.main, "--dataset store --out out"),
    "ingest": (
        "interactions",
        ingest.main,
        "--raw raw --out out --scratch cache --metrics reports/m.json",
    ),
    "split": (
        "splits",
        split_stage.main,
        "--interactions interactions --out out --scratch scratch --metrics reports/m.json "
        "--expectations reports/e.json --docs reports/docs",
    ),
    "train_teacher": (
        "teacher",
        train_teacher.main,
        "--splits splits --out out --scratch scratch --metrics reports/m.json "
        "--curve reports/c.json",
    ),
    "build_backbone": (
        "backbone",
        build_backbone.main,
        "--splits splits --out out --metrics reports/m.json",
    ),
    "train_student": (
        "student",
        train_student.main,
        "--splits splits --teacher teacher --backbone backbone --out out --scratch scratch "
        "--metrics reports/m.json --curve reports/c.json",
    ),
    "fit_recommender": (
        "recommender",
        fit_recommender.main,
        "--splits splits --student student --teacher teacher --backbone backbone --out out "
        "--metrics reports/m.json",
    ),
    "export_embeddings": (
        "embeddings",
        export_embeddings.main,
        "--splits splits --teacher teacher --recommender recommender --out out",
    ),
    "recommend_all": (
        "recommendations",
        recommend_all.main,
        "--splits splits --teacher teacher --backbone backbone --student student "
        "--recommender recommender --out out --scratch scratch",
    ),
    "evaluate": (
        "evaluation",
        evaluate.main,
        "--dataset store --splits splits --teacher teacher --backbone backbone --student student "
        "--recommender recommender --reports reports",
    ),
    "pack_bundle": ("serving", pack_bundle.main, "--artifacts store --out out"),
    "compare_champion": (
        "promotion",
        compare_champion.main,
        "--artifacts store --gates gates.json --out c.json",
    ),
}
INGEST = [
    "--raw",
    "raw",
    "--out",
    "interactions",
    "--scratch",
    "cache",
    "--metrics",
    "reports/interactions.json",
]
CONFIGURED = [name for name in STAGES if name != "download"]
FILES = ["operations.yaml", "params.yaml"]


def file_of(name: str) -> str:
    """The file that configures the stage."""
    return FILES[STAGES[name][0] not in ("promotion", "serving")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder of the stage."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name]


def error_of(name: str) -> str:
    """The line that a failing stage prints; Python prints a string exit code and exits with 1."""
    _, main, arguments = STAGES[name]
    with pytest.raises(SystemExit) as caught:
        stages.run(partial(main, arguments.split()))
    message = caught.value.code
    assert isinstance(message, str)
    assert message.startswith("error: ")
    assert "\n" not in message
    return message


def test_every_stage_is_tested_here_or_in_its_own_file() -> None:
    modules, tests = Path(stages.__file__).parent, Path(__file__).parent.glob("test_*.py")
    tested = {"__init__", *STAGES, *(file.stem.removeprefix("test_") for file in tests)}
    assert {file.stem for file in modules.glob("*.py")} <= tested


# --- params.yaml ---


@pytest.mark.parametrize("name", STAGES)
def test_without_params_the_error_says_where_to_run(name: str, folder: Path) -> None:
    assert error_of(name) == f"error: {file_of(name)} does not exist: run from the project's root"
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", STAGES)
def test_the_error_names_a_missing_section(name: str, folder: Path) -> None:
    (folder / file_of(name)).write_text("other: {}\n")
    section = STAGES[name][0]
    assert error_of(name).startswith(f"error: {file_of(name)} has no section '{section}:'")


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_error_names_an_unknown_key(
    name: str, folder: Path, params: Callable[..., Path]
) -> None:
    section = STAGES[name][0]
    params(**{section: {"colour": "blue"}})
    assert error_of(name).startswith(
        f"error: {file_of(name)}: {section}.colour is unknown; known keys: "
    )
    assert sorted(file.name for file in folder.iterdir()) == FILES


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_error_names_a_missing_key(
    name: str, folder: Path, params: Callable[..., Path]
) -> None:
    section = STAGES[name][0]
    file = params().with_name(file_of(name))
    document = yaml.safe_load(file.read_text())
    key = list(document[section])[-1]
    del document[section][key]
    file.write_text(yaml.safe_dump(document))
    assert f"{file_of(name)}: {section}.{key} is missing" in error_of(name)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ingest", {"earliest": "2040-01-01"}, "interactions: earliest must be before latest"),
        ("split", {"sample_rate": 0.0}, "splits: sample_rate must be above 0"),
        (
            "ingest",
            {"max_reject_share": 1.1},
            "interactions.max_reject_share is 1.1; it must be at most 1",
        ),
        (
            "split",
            {"split": "random"},
            "splits.split is 'random'; choose from leave_one_out, global_temporal",
        ),
        ("train_teacher", {"epochs": "many"}, "teacher.epochs is 'many'; expected a whole number"),
        ("build_backbone", {"num_heads": 5}, "backbone: hidden_size must be a multiple of twice"),
        ("train_student", {"distill": "kl"}, "student.distill is 'kl'; choose from mse"),
        ("evaluate", {"bootstrap": 0.5}, "evaluation.bootstrap is 0.5; expected a whole number"),
        ("export_embeddings", {"upload": 3}, "embeddings.upload is 3; expected a text"),
        ("recommend_all", {"k": 0}, "recommendations.k is 0; it must be at least 1"),
        (
            "fit_recommender",
            {"content_last": 0},
            "recommender.content_last is 0; it must be at least 1",
        ),
        (
            "fit_recommender",
            {"parts": ["teacher", "markov"]},
            "recommender.parts[1] is 'markov'; choose from teacher, student, content",
        ),
        (
            "compare_champion",
            {"gates": "some"},
            "promotion.gates is 'some'; choose from error, all, none",
        ),
        (
            "pack_bundle",
            {"user_cache_mb": -1},
            "serving.user_cache_mb is -1; it must be at least 0",
        ),
    ],
)
def test_the_error_names_an_invalid_value(
    name: str, change: dict[str, Any], message: str, params: Callable[..., Path]
) -> None:
    params(**{STAGES[name][0]: change})
    assert f"{file_of(name)}: {message}" in error_of(name)


# --- missing inputs ---


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("ingest", "raw"),
        ("split", "interactions/interactions.parquet"),
        ("train_teacher", "splits/interactions.parquet"),
        ("build_backbone", "splits/items.parquet"),
        ("train_student", "splits/interactions.parquet"),
        ("fit_recommender", "splits/interactions.parquet"),
        ("export_embeddings", "splits/items.parquet"),
        ("recommend_all", "splits/interactions.parquet"),
        ("evaluate", "splits/interactions.parquet"),
        ("pack_bundle", "store/splits/items.parquet"),
        ("compare_champion", "gates.json"),
    ],
)
def test_the_error_names_a_missing_input(
    name: str, missing: str, folder: Path, params: Callable[..., Path]
) -> None:
    params()
    message = error_of(name)
    assert f" {missing} is " in message
    assert "dvc repro" in message or "llmsrec download" in message
    assert sorted(file.name for file in folder.iterdir()) == FILES


def test_the_error_for_an_unknown_dataset_lists_the_known_ones(
    folder: Path, params: Callable[..., Path]
) -> None:
    params(datasets={"toys": "sample", "games": "sample"})
    assert error_of("download") == (
        "error: params.yaml: datasets has no 'store'; it has toys, games"
    )


def test_a_source_without_the_dataset_leaves_no_file(
    folder: Path, params: Callable[..., Path]
) -> None:
    (folder / "source").mkdir()
    params(datasets={"store": str(folder / "source")})
    assert f"looked for {folder}/source/store.jsonl.gz" in error_of("download")
    assert list((folder / "out").iterdir()) == []


# --- raw files ---


def review(user: int, item: int, day: int) -> str:
    return json.dumps({"user_id": f"U{user}", "parent_asin": f"I{item}", "timestamp": day * DAY})


GOOD = [review(user, item, 12_000 + item) for user in range(30) for item in range(10)]


def raw(folder: Path, **files: bytes) -> None:
    (folder / "raw").mkdir()
    for name, content in files.items():
        (folder / "raw" / name.replace("__", ".")).write_bytes(content)


def lines(*texts: str) -> bytes:
    return "".join(f"{line}\n" for line in texts).encode()


def test_the_error_for_too_many_malformed_lines_has_counts_and_the_first_place(
    folder: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(folder, store__jsonl=lines(*GOOD[:7], '{"user_id": "U1"', *GOOD[7:8], "[]", '{"user_id": '))
    message = error_of("ingest")
    assert (
        "3 of 11 lines of store.jsonl are malformed (27.3%; allowed 5.0%), 2 of them as 'broken JSON'"
        in message
    )
    assert 'first in line 8: \'{"user_id": "U1"\'' in message
    assert "raise interactions.max_reject_share" in message
    assert not (folder / "out").exists()
    assert (folder / "reports" / "rejects.parquet").exists()
    assert not (folder / "reports" / "m.json").exists()


def test_an_earlier_output_survives_a_failure(folder: Path, params: Callable[..., Path]) -> None:
    params()
    raw(folder, store__jsonl=lines("no review"))
    (folder / "out").mkdir()
    (folder / "out" / "interactions.parquet").write_text("earlier")
    error_of("ingest")
    assert [file.read_text() for file in (folder / "out").iterdir()] == ["earlier"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "raw holds no review file"),
        ({"meta_store__jsonl": b"{}\n"}, "raw holds no review file"),
        (
            {"store__jsonl": b"{}\n", "notes__txt": b"x"},
            "raw holds ['notes.txt']; expected reviews as .jsonl",
        ),
        (
            {"store__jsonl": b"{}\n", "store__train__csv": b"x"},
            "raw mixes a ready split (.train.csv ...) with unsplit files",
        ),
        ({"store__jsonl": b""}, "store.jsonl holds no line of data"),
        (
            {"store__csv": b"user_id,item,rating\nu,i,5\n"},
            "raw/store.csv, line 1: the header ['user_id', 'item', 'rating'] has no column "
            "'timestamp'",
        ),
        ({"store__csv": b"user_id,\xff\xfe,rating\n"}, "raw/store.csv, line 1"),
    ],
)
def test_the_error_names_unreadable_raw_files(
    files: dict[str, bytes], message: str, folder: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(folder, **files)
    assert message in error_of("ingest")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", ["store.jsonl.gz", "store.csv.gz", "meta_store.jsonl.gz"])
def test_the_error_names_a_truncated_gzip(
    name: str, folder: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(folder, store__jsonl=lines(*GOOD))
    content = gzip.compress(lines("user_id,parent_asin,timestamp", *GOOD) * 100)
    (folder / "raw" / name).write_bytes(content[: len(content) // 2])
    message = error_of("ingest")
    assert f"raw/{name} breaks off after line " in message
    assert not (folder / "out").exists()


def test_a_stage_as_a_process_prints_the_line_and_exits_with_1(
    folder: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(folder, store__csv=b"user_id,item,rating\nu,i,5\n")
    command = [sys.executable, "-m", "llmsrec.stages.ingest", *STAGES["ingest"][2].split()]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1].startswith("error: raw/store.csv, line 1: the header")
    assert "Traceback" not in process.stderr


# --- splits ---


@pytest.fixture
def interactions(folder: Path, params: Callable[..., Path]) -> None:
    """The output of the previous stage."""
    params()
    raw(folder, store__jsonl=lines(*GOOD))
    ingest.main(INGEST)


@pytest.mark.usefixtures("interactions")
def test_the_error_names_thresholds_that_nothing_survives(
    folder: Path, params: Callable[..., Path]
) -> None:
    params(splits={"user_threshold": 11})
    message = error_of("split")
    assert (
        "no interaction survives splits.user_threshold 11 and splits.item_threshold 5: a user has "
        in message
    )
    assert "a user has at most 10 items and an item 30 users. Lower them in params.yaml" in message
    assert not (folder / "out").exists()


@pytest.mark.usefixtures("interactions")
def test_the_error_for_too_few_items_says_what_to_do(
    folder: Path, params: Callable[..., Path]
) -> None:
    params(splits={"negatives": 9})
    assert "lower splits.negatives" in error_of("split")
    assert not (folder / "out").exists()


@pytest.mark.usefixtures("interactions")
def test_splits_that_fail_an_expectation_are_reported_and_not_written(
    folder: Path, params: Callable[..., Path]
) -> None:
    (folder / "raw" / "store.jsonl").write_bytes(
        lines(
            *(review(user, (user + 7 * n) % 50, 12_000 + n) for user in range(60) for n in range(9))
        )
    )
    ingest.main(INGEST)
    small = {"negatives": 9, "generation_negatives": 0, "min_items": 1}
    params(splits={**small, "min_users": 1000})
    message = error_of("split")
    assert "the splits fail 1 expectations: enough_users (at least 1000 users" in message
    assert "See reports/docs/index.html" in message
    assert not (folder / "out").exists()
    assert not (folder / "reports" / "m.json").exists()
    assert json.loads((folder / "reports" / "e.json").read_text())["success"] is False
    assert (folder / "reports" / "docs" / "index.html").exists()


# --- models ---


def test_histories_too_short_to_train_on_are_an_error(
    folder: Path, params: Callable[..., Path]
) -> None:
    params()
    short = {user: items[:3] for user, items in markov_histories(40, 40, 0).items()}
    config = splits_config(generation_negatives=0)
    split(interactions_of(short), config).save(folder / "splits")
    assert "no user has two training purchases" in error_of("train_teacher")
    assert not (folder / "out").exists()
    assert not (folder / "reports").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "backbone.model: ./nowhere is not a folder"),
        ("empty", "empty holds no .safetensors weights"),
        ("nobody/no-such-model", "the hub does not serve 'nobody/no-such-model' at revision main"),
    ],
)
def test_the_error_names_an_unavailable_language_model(
    model: str, message: str, folder: Path, params: Callable[..., Path]
) -> None:
    (folder / "empty").mkdir()
    params(backbone={"model": model})
    assert message in error_of("build_backbone")
    assert not (folder / "out").exists()


@pytest.fixture
def trained(folder: Path, params: Callable[..., Path], markov_splits: Splits) -> None:
    """Splits and a teacher trained for one epoch."""
    params(teacher={"epochs": 1, "embedding_size": 8, "max_length": 16})
    markov_splits.save(folder / "splits")
    arguments = STAGES["train_teacher"][2].replace("--out out", "--out teacher")
    train_teacher.main(arguments.split())


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("name", ["train_student", "fit_recommender", "evaluate"])
def test_the_error_names_a_missing_backbone(name: str, folder: Path) -> None:
    assert "backbone/backbone.json is missing: run the step that writes it" in error_of(name)
    assert not (folder / "out").exists()


@pytest.mark.usefixtures("trained")
def test_another_backbone_than_the_pinned_one_is_refused(
    folder: Path, small_backbone: Path
) -> None:
    reference = json.loads((small_backbone / "backbone.json").read_text())
    reference.update(kind="local", location=str(small_backbone / "model"), revision="0" * 64)
    (folder / "backbone").mkdir()
    (folder / "backbone" / "backbone.json").write_text(json.dumps(reference))
    assert "is not the model that was pinned: rerun the backbone step" in error_of("train_student")
    assert not (folder / "out").exists()


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("name", ["fit_recommender", "evaluate"])
def test_the_error_names_a_missing_student(name: str, folder: Path, small_backbone: Path) -> None:
    (folder / "backbone").symlink_to(small_backbone)
    assert "student/config.json is missing: run the step that writes it" in error_of(name)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", ["train_student", "evaluate"])
def test_the_error_names_a_missing_teacher(
    name: str,
    folder: Path,
    params: Callable[..., Path],
    markov_splits: Splits,
    small_backbone: Path,
) -> None:
    params()
    markov_splits.save(folder / "splits")
    (folder / "backbone").symlink_to(small_backbone)
    assert "teacher/config.json is missing: run the step that writes it" in error_of(name)
    assert not (folder / "out").exists()
