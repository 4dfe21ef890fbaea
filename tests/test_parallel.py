"""Two processes train as one: the same numbers, one that writes, and a clean restart when one is lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml

from llmsrec.config import from_mapping
from llmsrec.data.splits import Splits
from llmsrec.student.backbone import load_backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.train import Trainer as StudentTrainer
from llmsrec.student.train import new_student
from llmsrec.teacher.train import TeacherConfig
from llmsrec.teacher.train import Trainer as TeacherTrainer
from llmsrec.training import seed_torch

ROOT = Path(__file__).parents[1]
STEPS = 3


def sections(**student: Any) -> dict[str, Any]:
    """Without dropout, whose draws are each process's own."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["teacher"] |= {
        "embedding_size": 8,
        "dropout": 0.0,
        "epochs": 2,
        "validate_every": 1,
        "batch_size": 7,
    }
    document["student"] |= {
        "shared_size": 8, "head_size": 16, "batch_size": 5, "slot_dropout": 0.0, "catalogue_negatives": 6,
        "epochs": 1, "validation_users": 20, "validations_per_epoch": 4, **student,
    }  # fmt: skip
    return document


def steps_of(folder: Path, document: dict[str, Any]) -> dict[str, list[float]]:
    """Losses and gradients of a few steps of teacher and student, in this process or with others."""
    splits = Splits.load(folder / "splits")
    teaching = from_mapping(TeacherConfig, document["teacher"], "teacher")
    seed_torch(0)
    teacher = teaching.untrained(splits.num_items)
    found: dict[str, list[float]] = {"teacher": [], "student": []}
    trainer: Any = TeacherTrainer(teacher, splits.train, splits.num_items, teaching)
    for step in range(STEPS):
        found["teacher"].append(trainer.step(step)["loss"])
        found["teacher"] += [float(part.grad.norm()) for part in teacher.parameters()]
    config = from_mapping(StudentConfig, document["student"], "student")
    seed_torch(0)
    model = new_student(config, load_backbone(folder / "backbone"), teacher.eval(), splits.catalog)
    trainer = StudentTrainer(model, splits, config)
    trainer.start()
    for step in range(STEPS):
        found["student"].append(float(trainer.step(step)["loss"]))
        found["student"] += [float(part.grad.norm()) for part in model.heads.parameters()]
    return found


def start_two(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    return subprocess.Popen(
        [*command, *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip


def ended_well(process: subprocess.Popen[str]) -> None:
    try:
        said, _ = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, said


@pytest.fixture
def store(tmp_path: Path, markov_splits: Splits, small_backbone: Path) -> Path:
    markov_splits.save(tmp_path / "splits")
    (tmp_path / "backbone").symlink_to(small_backbone)
    return tmp_path


PAPERS = {
    "examples": "last_item",
    "in_batch": False,
    "catalogue_negatives": 0,
    "train_negatives": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, PAPERS], ids=["strong", "paper"])
def test_two_processes_have_the_numbers_of_one(store: Path, changes: dict[str, Any]) -> None:
    """Losses over the whole batch, uniformity and shared negatives among them, and every gradient; batches of five and
    seven cannot be halved."""
    document = sections(**changes)
    alone = steps_of(store, document)
    (store / "params.json").write_text(json.dumps(document))
    ended_well(start_two(["-m", "tests.test_parallel", str(store)], ROOT))
    together = [json.loads(file.read_text()) for file in sorted(store.glob("found-*.json"))]
    assert len(together) == 2
    for found in together:
        for name, values in alone.items():
            np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=1e-5, err_msg=name)


def train_together(store: Path, out: str) -> subprocess.Popen[str]:
    """The stage, in a folder of its own."""
    folder = store / out
    folder.mkdir()
    for name in ("splits", "teacher", "backbone"):
        (folder / name).symlink_to(store / name)
    document = sections(slot_dropout=0.2)
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    names = ("splits", "teacher", "backbone", "champion", "scratch", "out")
    arguments = [part for name in names for part in (f"--{name}", name)]
    arguments += ["--metrics", "metrics.json", "--curve", "curve.json"]
    return start_two(
        ["--max-restarts", "1", "-m", "llmsrec.stages.train_student", *arguments], folder
    )


def kill_the_second(process: subprocess.Popen[str], checkpoint: Path) -> None:
    """As soon as there is something to go on from."""
    while not checkpoint.exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children(recursive=True):
        if child.environ().get("RANK") == "1":
            child.kill()
            return
    raise AssertionError("there was no second process")


@pytest.mark.slow
def test_a_lost_process_ends_in_a_restart_from_the_last_look_and_the_same_bytes(
    store: Path, markov_splits: Splits
) -> None:
    """Dropout and all: what a step draws does not depend on where its process began."""
    seed_torch(0)
    config = from_mapping(TeacherConfig, sections()["teacher"], "teacher")
    config.untrained(markov_splits.num_items).save(store / "teacher")
    ended_well(train_together(store, "whole"))
    cut = train_together(store, "cut")
    kill_the_second(cut, store / "cut" / "scratch" / "state.json")
    ended_well(cut)
    for file in ("out/model.safetensors", "curve.json", "metrics.json"):
        assert (store / "whole" / file).read_bytes() == (store / "cut" / file).read_bytes(), file
    assert not (store / "cut" / "scratch").exists()


if __name__ == "__main__":
    from llmsrec import parallel

    parallel.start()
    folder = Path(sys.argv[1])
    numbers = steps_of(folder, json.loads((folder / "params.json").read_text()))
    (folder / f"found-{parallel.rank()}.json").write_text(json.dumps(numbers))
    torch.distributed.destroy_process_group()
