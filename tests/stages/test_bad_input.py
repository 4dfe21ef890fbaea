"""A stage that cannot do its work says why in one line, exits with 1, and leaves no part of an output."""

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
    ingest,
    pack_bundle,
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
        "--raw raw --out out --scratch kept --metrics reports/m.json",
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
    "export_embeddings": (
        "embeddings",
        export_embeddings.main,
        "--splits splits --student student --teacher teacher --backbone backbone --out out",
    ),
    "evaluate": (
        "evaluation",
        evaluate.main,
        "--dataset store --splits splits --teacher teacher --backbone backbone --student student "
        "--embeddings item_embeddings --reports reports",
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
    "kept",
    "--scratch",
    "kept",
    "--metrics",
    "reports/interactions.json",
]
CONFIGURED = [name for name in STAGES if name != "download"]
FILES = ["operations.yaml", "params.yaml"]


def file_of(name: str) -> str:
    """The file that configures the stage."""
    return FILES[STAGES[name][0] not in ("promotion", "serving")]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stages run in a working folder of their own."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name]


def refusal(name: str) -> str:
    """The one line of a stage that fails; a text as exit code is printed, and the status is 1."""
    _, main, arguments = STAGES[name]
    with pytest.raises(SystemExit) as caught:
        stages.run(partial(main, arguments.split()))
    said = caught.value.code
    assert isinstance(said, str)
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


def test_every_stage_is_tried_here_or_in_a_file_of_its_own() -> None:
    folder, own = Path(stages.__file__).parent, Path(__file__).parent.glob("test_*.py")
    tried = {"__init__", *STAGES, *(file.stem.removeprefix("test_") for file in own)}
    assert {file.stem for file in folder.glob("*.py")} <= tried


# --- params.yaml ---


@pytest.mark.parametrize("name", STAGES)
def test_without_params_a_stage_says_where_to_run(name: str, here: Path) -> None:
    assert refusal(name) == f"error: {file_of(name)} does not exist: run from the project's root"
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", STAGES)
def test_a_missing_section_is_named(name: str, here: Path) -> None:
    (here / file_of(name)).write_text("other: {}\n")
    section = STAGES[name][0]
    assert refusal(name).startswith(f"error: {file_of(name)} has no section '{section}:'")


@pytest.mark.parametrize("name", CONFIGURED)
def test_an_unknown_key_is_named(name: str, here: Path, params: Callable[..., Path]) -> None:
    section = STAGES[name][0]
    params(**{section: {"colour": "blue"}})
    assert refusal(name).startswith(
        f"error: {file_of(name)}: {section}.colour is unknown; known keys: "
    )
    assert sorted(file.name for file in here.iterdir()) == FILES


@pytest.mark.parametrize("name", CONFIGURED)
def test_a_missing_key_is_named(name: str, here: Path, params: Callable[..., Path]) -> None:
    section = STAGES[name][0]
    file = params().with_name(file_of(name))
    document = yaml.safe_load(file.read_text())
    key = list(document[section])[-1]
    del document[section][key]
    file.write_text(yaml.safe_dump(document))
    assert f"{file_of(name)}: {section}.{key} is missing" in refusal(name)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("ingest", {"earliest": "2040-01-01"}, "interactions: earliest must be before latest"),
        ("split", {"sample_rate": 0.0}, "splits: sample_rate of 0 keeps nobody"),
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
def test_an_impossible_value_is_named(
    name: str, change: dict[str, Any], said: str, params: Callable[..., Path]
) -> None:
    params(**{STAGES[name][0]: change})
    assert f"{file_of(name)}: {said}" in refusal(name)


# --- inputs that are not there ---


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("ingest", "raw"),
        ("split", "interactions/interactions.parquet"),
        ("train_teacher", "splits/interactions.parquet"),
        ("build_backbone", "splits/interactions.parquet"),
        ("train_student", "splits/interactions.parquet"),
        ("export_embeddings", "splits/interactions.parquet"),
        ("evaluate", "splits/interactions.parquet"),
        ("pack_bundle", "store/splits/items.parquet"),
        ("compare_champion", "gates.json"),
    ],
)
def test_a_missing_input_is_named(
    name: str, missing: str, here: Path, params: Callable[..., Path]
) -> None:
    params()
    said = refusal(name)
    assert f" {missing} is " in said
    assert "dvc repro" in said or "llmsrec download" in said
    assert sorted(file.name for file in here.iterdir()) == FILES


def test_an_unknown_dataset_is_told_the_known_ones(here: Path, params: Callable[..., Path]) -> None:
    params(datasets={"toys": "sample", "games": "sample"})
    assert refusal("download") == (
        "error: params.yaml: datasets has no 'store'; it has toys, games"
    )


def test_a_source_without_the_dataset_leaves_nothing(
    here: Path, params: Callable[..., Path]
) -> None:
    (here / "shelf").mkdir()
    params(datasets={"store": str(here / "shelf")})
    assert f"looked for {here}/shelf/store.jsonl.gz" in refusal("download")
    assert list((here / "out").iterdir()) == []


# --- raw files ---


def review(user: int, item: int, day: int) -> str:
    return json.dumps({"user_id": f"U{user}", "parent_asin": f"I{item}", "timestamp": day * DAY})


GOOD = [review(user, item, 12_000 + item) for user in range(30) for item in range(10)]


def raw(here: Path, **files: bytes) -> None:
    (here / "raw").mkdir()
    for name, content in files.items():
        (here / "raw" / name.replace("__", ".")).write_bytes(content)


def lines(*some: str) -> bytes:
    return "".join(f"{line}\n" for line in some).encode()


def test_too_many_broken_lines_are_told_by_number_and_first_place(
    here: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(here, store__jsonl=lines(*GOOD[:7], '{"user_id": "U1"', *GOOD[7:8], "[]", '{"user_id": '))
    said = refusal("ingest")
    assert "3 of 11 lines are broken (27.3%; allowed 5.0%), most often 'broken JSON'" in said
    assert "first store.jsonl line 8 (broken JSON)" in said
    assert "raise interactions.max_reject_share" in said
    assert not (here / "out").exists()
    assert (here / "reports" / "rejects.parquet").exists()  # to look at
    assert not (here / "reports" / "m.json").exists()


def test_an_earlier_output_survives_a_failure(here: Path, params: Callable[..., Path]) -> None:
    params()
    raw(here, store__jsonl=lines("no review"))
    (here / "out").mkdir()
    (here / "out" / "interactions.parquet").write_text("of before")
    refusal("ingest")
    assert [file.read_text() for file in (here / "out").iterdir()] == ["of before"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "raw holds no review file"),
        ({"meta_store__jsonl": b"{}\n"}, "raw holds no review file"),
        ({"store__jsonl": b"{}\n", "notes__txt": b"x"}, "raw holds ['notes.txt']: only .jsonl and"),
        (
            {"store__jsonl": b"{}\n", "store__train__csv": b"x"},
            "raw mixes a ready split (.train.csv ...) with unsplit files",
        ),
        ({"store__jsonl": b""}, "none of the 0 lines of ['store.jsonl'] is a review"),
        (
            {"store__csv": b"user_id,item,rating\nu,i,5\n"},
            "raw/store.csv, line 1: the header ['user_id', 'parent_asin', 'rating'] has no column "
            "'timestamp'",
        ),
        ({"store__csv": b"user_id,\xff\xfe,rating\n"}, "raw/store.csv, line 1"),
    ],
)
def test_raw_files_that_cannot_be_read_are_named(
    files: dict[str, bytes], said: str, here: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(here, **files)
    assert said in refusal("ingest")
    assert not (here / "out").exists()


@pytest.mark.parametrize("name", ["store.jsonl.gz", "store.csv.gz", "meta_store.jsonl.gz"])
def test_a_gzip_that_breaks_off_is_named(
    name: str, here: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(here, store__jsonl=lines(*GOOD))
    whole = gzip.compress(lines("user_id,parent_asin,timestamp", *GOOD) * 100)
    (here / "raw" / name).write_bytes(whole[: len(whole) // 2])
    said = refusal("ingest")
    assert f"raw/{name} breaks off after line " in said
    assert not (here / "out").exists()


def test_as_a_process_a_stage_prints_the_line_and_exits_with_1(
    here: Path, params: Callable[..., Path]
) -> None:
    params()
    raw(here, store__csv=b"user_id,item,rating\nu,i,5\n")
    command = [sys.executable, "-m", "llmsrec.stages.ingest", *STAGES["ingest"][2].split()]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1].startswith("error: raw/store.csv, line 1: the header")
    assert "Traceback" not in run.stderr


# --- splits ---


@pytest.fixture
def interactions(here: Path, params: Callable[..., Path]) -> None:
    """What the stage before would have left."""
    params()
    raw(here, store__jsonl=lines(*GOOD))
    ingest.main(INGEST)


@pytest.mark.usefixtures("interactions")
def test_thresholds_that_nothing_survives_are_named(
    here: Path, params: Callable[..., Path]
) -> None:
    params(splits={"user_threshold": 11})
    said = refusal("split")
    assert "no interaction survives user_threshold 11 and item_threshold 5: lower them" in said
    assert not (here / "out").exists()


@pytest.mark.usefixtures("interactions")
def test_too_few_items_for_the_negatives_are_told(here: Path, params: Callable[..., Path]) -> None:
    params(splits={"negatives": 9})
    assert "lower splits.negatives" in refusal("split")
    assert not (here / "out").exists()


@pytest.mark.usefixtures("interactions")
def test_splits_that_fail_an_expectation_are_not_written_but_reported(
    here: Path, params: Callable[..., Path]
) -> None:
    (here / "raw" / "store.jsonl").write_bytes(
        lines(
            *(review(user, (user + 7 * n) % 50, 12_000 + n) for user in range(60) for n in range(9))
        )
    )
    ingest.main(INGEST)
    small = {"negatives": 9, "generation_negatives": 0, "min_items": 1}
    params(splits={**small, "min_users": 1000})
    said = refusal("split")
    assert "the splits fail 1 expectations: enough_users (at least 1000 users" in said
    assert "See reports/docs/index.html" in said
    assert not (here / "out").exists()
    assert not (here / "reports" / "m.json").exists()
    assert json.loads((here / "reports" / "e.json").read_text())["success"] is False
    assert (here / "reports" / "docs" / "index.html").exists()


# --- models ---


def test_histories_too_short_to_train_on_are_told(here: Path, params: Callable[..., Path]) -> None:
    params()
    short = {user: items[:3] for user, items in markov_histories(40, 40, 0).items()}
    config = splits_config(generation_negatives=0)
    split(interactions_of(short), config).save(here / "splits")
    assert "no user has two training purchases" in refusal("train_teacher")
    assert not (here / "out").exists()
    assert not (here / "reports").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("./nowhere", "backbone.model: ./nowhere is no folder"),
        ("empty", "empty holds no .safetensors weights"),
        ("nobody/no-such-model", "the hub does not give 'nobody/no-such-model' at revision main"),
    ],
)
def test_a_language_model_that_cannot_be_had_is_named(
    model: str, said: str, here: Path, params: Callable[..., Path]
) -> None:
    (here / "empty").mkdir()
    params(backbone={"model": model})
    assert said in refusal("build_backbone")
    assert not (here / "out").exists()


@pytest.fixture
def trained(here: Path, params: Callable[..., Path], markov_splits: Splits) -> None:
    """Splits and a hardly trained teacher."""
    params(teacher={"epochs": 1, "embedding_size": 8, "max_length": 16})
    markov_splits.save(here / "splits")
    arguments = STAGES["train_teacher"][2].replace("--out out", "--out teacher")
    train_teacher.main(arguments.split())


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("name", ["train_student", "export_embeddings", "evaluate"])
def test_a_missing_backbone_is_named(name: str, here: Path) -> None:
    assert "backbone/backbone.json is missing: run the step that writes it" in refusal(name)
    assert not (here / "out").exists()


@pytest.mark.usefixtures("trained")
def test_a_backbone_that_is_not_the_pinned_one_is_refused(here: Path, small_backbone: Path) -> None:
    reference = json.loads((small_backbone / "backbone.json").read_text())
    reference.update(kind="local", location=str(small_backbone / "model"), revision="0" * 64)
    (here / "backbone").mkdir()
    (here / "backbone" / "backbone.json").write_text(json.dumps(reference))
    assert "is not the model that was pinned: rerun the backbone step" in refusal("train_student")
    assert not (here / "out").exists()


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize("name", ["export_embeddings", "evaluate"])
def test_a_missing_student_is_named(name: str, here: Path, small_backbone: Path) -> None:
    (here / "backbone").symlink_to(small_backbone)
    assert "student/config.json is missing: run the step that writes it" in refusal(name)
    assert not (here / "out").exists()


@pytest.mark.parametrize("name", ["train_student", "evaluate"])
def test_a_missing_teacher_is_named(
    name: str,
    here: Path,
    params: Callable[..., Path],
    markov_splits: Splits,
    small_backbone: Path,
) -> None:
    params()
    markov_splits.save(here / "splits")
    (here / "backbone").symlink_to(small_backbone)
    assert "teacher/config.json is missing: run the step that writes it" in refusal(name)
    assert not (here / "out").exists()
