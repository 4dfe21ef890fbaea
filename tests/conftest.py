"""Small stores and models that every test can afford, quiet libraries, checked shapes, and no network."""

import os
import sys
from types import SimpleNamespace

main = sys.modules["__main__"]
if main.__spec__ is None and not hasattr(main, "__file__"):  # a worker of xdist
    # Great Expectations imports what it finds of Spark, which takes such a process for its own doctests, and ends it.
    main.__spec__ = SimpleNamespace(name=None)  # type: ignore[assignment]

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # workers share the cores; spinning threads cost more than they give
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

from jaxtyping import install_import_hook

install_import_hook(
    "llmsrec", "beartype.beartype"
)  # shapes in signatures are checked at every call

import socket
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings

from llmsrec.core.files import write_json
from llmsrec.data.catalog import COLUMNS, Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.preprocessing.k_core import SplitsConfig
from llmsrec.preprocessing.splitting import split
from llmsrec.relational.interactions import Interactions

# How long an example takes to draw or to check is the machine's business: it may be busy.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

# What tests share if they run in one worker.
DAY = 86_400_000
# The seed of made-up histories; tests/robust.py asks for another.
MADE_UP = int(os.environ.get("MADE_UP", "0"))
SHARED = Path(__file__).parents[2] / "shared" / "data"


def splits_config(**changes: Any) -> SplitsConfig:
    values: dict[str, Any] = {
        "split": "leave_one_out", "kcore": "iterative", "user_threshold": 1, "item_threshold": 1,
        "sample_rate": 1.0, "seed": 0, "temporal_share": 0.1, "temporal_target": "last", "negatives": 9,
        "generation_negatives": 4, "max_users": None, "min_users": 1, "min_items": 1,
    }  # fmt: skip
    return SplitsConfig(**{**values, **changes})


def interactions_of(
    histories: dict[str, list[str]], times: dict[str, list[int]] | None = None
) -> Interactions:
    """Purchases in the order given; user u's n-th purchase is on day n of its own, or at `times`."""
    rows = []
    for number, (user, items) in enumerate(histories.items()):
        for position, item in enumerate(items):
            day = times[user][position] if times else 10_000 + 7 * number + position
            rows.append((user, item, day * DAY, None, len(rows), None, position))
    names = ["user_id", "item_id", "timestamp", "rating", "source_order", "part", "position"]
    frame = pd.DataFrame(rows, columns=names).astype({"rating": "float64", "part": "Int64"})
    items = pd.DataFrame(columns=COLUMNS[1:], dtype=str)
    schema = {**dict.fromkeys(names, "int64"), "user_id": "string", "item_id": "string"}
    schema["rating"] = "float64"
    connection = ibis.duckdb.connect()
    return Interactions(
        connection.create_table("rows", frame, schema=schema),
        connection.create_table("items", items, schema=dict.fromkeys(COLUMNS[1:], "string")),
    )


def markov_histories(users: int, items: int, seed: int) -> dict[str, list[str]]:
    """Item i leads to i + 1 nearly always: whoever ignores the order cannot tell what comes next."""
    draws = np.random.default_rng(seed)
    histories = {}
    for user in range(users):
        current, bought = int(draws.integers(items)), []
        for _ in range(int(draws.integers(5, 12))):
            bought.append(f"I{current:03d}")
            step = 1 if draws.random() < 0.9 else int(draws.integers(2, items - 12))
            current = (current + step) % items
        histories[f"U{user:04d}"] = list(dict.fromkeys(bought))
    return histories


def with_texts(splits: Splits) -> Splits:
    """Titles that differ in length, so that prompts do."""
    items = splits.catalog.items.copy()
    items["title"] = [f"Thing {'long ' * (index % 4)}number {index}" for index in items.item_index]
    return Splits(
        Catalog(items),
        splits.user_ids,
        splits.sequences,
        splits.train_lengths,
        splits.targets,
        splits.candidates,
        splits.generation_candidates,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests start first, and the longest before all, so that no worker is left with it at the end."""
    longest = Path(__file__).parent / "pipeline"
    items.sort(
        key=lambda item: (longest not in item.path.parents, item.get_closest_marker("slow") is None)
    )


@pytest.fixture(scope="session")
def markov_splits() -> Splits:
    config = splits_config(generation_negatives=0)  # no titles yet to tell candidates apart by
    return with_texts(split(interactions_of(markov_histories(300, 40, MADE_UP)), config))


@pytest.fixture(scope="session")
def few_splits() -> Splits:
    """The same items and fewer users, for trainings whose outcome nobody looks at."""
    config = splits_config(generation_negatives=0)
    return with_texts(split(interactions_of(markov_histories(80, 40, MADE_UP)), config))


@pytest.fixture(scope="session")
def small_backbone(tmp_path_factory: pytest.TempPathFactory, markov_splits: Splits) -> Path:
    """A backbone built by the stage's own code, though only for a few steps."""
    from llmsrec.backbones.small import build_small
    from llmsrec.llm.backbone import BackboneConfig
    from llmsrec.llm.pretrained import folder_digest

    folder = tmp_path_factory.mktemp("models") / "backbone"
    folder.mkdir()
    config = BackboneConfig(
        model="small", revision=None, dtype="float32", layers=None, num_layers=2, hidden_size=32, num_heads=2,
        vocabulary_size=400, max_positions=1024, steps=5, batch_tokens=512, learning_rate=1e-3, seed=0,
    )  # fmt: skip
    build_small(markov_splits.catalog, config, folder / "model")
    digest = folder_digest(folder / "model")
    write_json(
        folder / "backbone.json",
        {"kind": "small", "location": "model", "revision": digest, "dtype": "float32"},
    )
    return folder


class ShuffledTraining(Splits):
    """Training purchases of anybody's items."""

    @property
    def train(self) -> Sequences:
        train = super().train
        return replace(train, items=np.random.default_rng(0).permutation(train.items))


def write_trained_dataset(folder: Path, splits: Splits, taught: Splits, backbone: Path) -> None:
    """A trained dataset as the stages leave it; its models learn from `taught`."""
    from llmsrec.core.config import load_section
    from llmsrec.core.files import sha256
    from llmsrec.llm.backbone import load_backbone
    from llmsrec.recommender.fitted import RecommenderConfig, fit_recommender
    from llmsrec.sequential.trainer import TeacherConfig, train_teacher
    from llmsrec.serving.leakage import TRAINING_INTERACTIONS, training_interactions
    from llmsrec.student.config import StudentConfig
    from llmsrec.student.trainer import train_student
    from llmsrec.training.checkpoints import Checkpoints
    from llmsrec.training.loop import MetricLog

    params = Path(__file__).parents[1] / "params.yaml"
    log, fresh = MetricLog(), Checkpoints(None, "")
    splits.save(folder / "splits")
    np.save(folder / TRAINING_INTERACTIONS, training_interactions(splits))
    (folder / "backbone").symlink_to(backbone)
    teaching = replace(
        load_section(TeacherConfig, "teacher", params),
        epochs=20, embedding_size=16, max_length=16, learning_rate=0.01,
    )  # fmt: skip
    teacher = train_teacher(taught, teaching, log, fresh)
    teacher.save(folder / "teacher")
    learning = replace(
        load_section(StudentConfig, "student", params),
        shared_size=16, head_size=128, epochs=4, batch_size=32, validation_users=20, window=4, stride=2,
        learning_rate=4e-3, projector_lr_multiplier=1.0,
    )  # fmt: skip
    student = train_student(taught, teacher, load_backbone(backbone), learning, log, fresh)
    student.save_pretrained(folder / "student")
    config = load_section(RecommenderConfig, "recommender", params)
    digest = sha256(folder / "student" / "model.safetensors")
    # so small a student may get weight 0, by which its faults would go unnoticed
    weights = {"teacher": 0.5, "student": 1.0, "content": 0.5}
    fitted = fit_recommender(student, splits, config, digest)
    replace(fitted, weights=weights).save(folder / "recommender")


@pytest.fixture(scope="session")
def trained_dataset(
    tmp_path_factory: pytest.TempPathFactory, markov_splits: Splits, small_backbone: Path
) -> Path:
    """Models trained on sequences whose order predicts the next item."""
    folder = tmp_path_factory.mktemp("trained") / "tiny"
    write_trained_dataset(folder, markov_splits, markov_splits, small_backbone)
    return folder


@pytest.fixture(scope="session")
def shuffled_dataset(
    tmp_path_factory: pytest.TempPathFactory, markov_splits: Splits, small_backbone: Path
) -> Path:
    """The same dataset with models trained on shuffled items."""
    folder = tmp_path_factory.mktemp("shuffled") / "tiny"
    shuffled = ShuffledTraining(
        **{field.name: getattr(markov_splits, field.name) for field in fields(Splits)}
    )
    write_trained_dataset(folder, markov_splits, shuffled, small_backbone)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would leave this machine fails at once."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"tests stay on this machine: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def params(tmp_path: Path) -> Callable[..., Path]:
    """Write copies of the project's params.yaml and operations.yaml with some sections changed."""
    import yaml

    def write(**sections: dict[str, Any]) -> Path:
        for name in ("params.yaml", "operations.yaml"):
            document = yaml.safe_load((Path(__file__).parents[1] / name).read_text())
            for section in sections.keys() & document.keys():
                old = {} if section == "datasets" else document[section]
                document[section] = {**old, **sections[section]}
            (tmp_path / name).write_text(yaml.safe_dump(document, sort_keys=False))
        return tmp_path / "params.yaml"

    return write


@pytest.fixture(scope="session")
def endpoint() -> Iterator[tuple[str, int]]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()


@pytest.fixture
def s3(endpoint: tuple[str, int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A client of the test's own; the environment leads ours to the same server."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*endpoint),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield client
    for found in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=found["Key"])
    client.delete_bucket(Bucket="bucket")
    client.close()
