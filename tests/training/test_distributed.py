"""Training in two processes: the numbers of one process, one writer, a restart when a process is lost."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from llmsrec.core.config import from_mapping
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import load_backbone
from llmsrec.sequential.trainer import CausalTrainer, TeacherConfig
from llmsrec.stages import train_student
from llmsrec.student.config import StudentConfig
from llmsrec.student.trainer import StudentTrainer, new_student
from llmsrec.training import distributed
from llmsrec.training.seeding import seed_torch

ROOT = Path(__file__).parents[2]
STEPS = 3


def sections(**student: Any) -> dict[str, Any]:
    """Settings without dropout, whose draws differ between processes."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["teacher"] |= {
        "embedding_size": 8,
        "dropout": 0.0,
        "epochs": 2,
        "validate_every": 1,
        "batch_size": 7,
    }
    document["student"] |= {
        "shared_size": 8, "head_size": 16, "batch_size": 5, "item_vector_dropout": 0.0, "catalogue_negatives": 6,
        "epochs": 1, "validation_users": 20, "validations_per_epoch": 4, **student,
    }  # fmt: skip
    return document


def steps_of(folder: Path, document: dict[str, Any]) -> dict[str, list[float]]:
    """Losses and gradients of a few steps of teacher and student, in this process or with others."""
    splits = Splits.load(folder / "splits")
    teaching = from_mapping(TeacherConfig, document["teacher"] | {"seed": 0}, "teacher")
    seed_torch(0)
    teacher = teaching.build_network(splits.num_items)
    numbers: dict[str, list[float]] = {"teacher": [], "student": []}
    trainer: Any = CausalTrainer(teacher, splits.train, splits.num_items, teaching)
    for step in range(STEPS):
        numbers["teacher"].append(trainer.step(step)["loss"])
        numbers["teacher"] += [float(part.grad.norm()) for part in teacher.parameters()]
    config = from_mapping(StudentConfig, document["student"] | {"seed": 0}, "student")
    seed_torch(0)
    model = new_student(config, load_backbone(folder / "backbone"), teacher.eval(), splits.catalog)
    trainer = StudentTrainer(model, splits, config)
    trainer.prepare()
    for step in range(STEPS):
        numbers["student"].append(float(trainer.step(step)["loss"]))
        numbers["student"] += [float(part.grad.norm()) for part in model.heads.parameters()]
    return numbers


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, few_splits: Splits, small_backbone: Path
) -> Path:
    """The folders in which two processes, started once since that takes longest, have done all that `main` does."""
    folder = tmp_path_factory.mktemp("folder")
    few_splits.save(folder / "splits")
    (folder / "backbone").symlink_to(small_backbone)
    seed_torch(0)
    config = from_mapping(TeacherConfig, sections()["teacher"] | {"seed": 0}, "teacher")
    config.build_network(few_splits.num_items).save(folder / "teacher")
    (folder / "params.json").write_text(json.dumps(DOCUMENTS))
    for name in ("whole", "cut"):
        (folder / name).mkdir()
        document = sections(item_vector_dropout=0.2)
        (folder / name / "params.yaml").write_text(yaml.safe_dump(document))
        for part in ("splits", "teacher", "backbone"):
            (folder / name / part).symlink_to(folder / part)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "--max-restarts", "1", "-m", "tests.training.test_distributed", str(folder),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=800)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output
    return folder


PAPERS = {
    "examples": "last_item",
    "in_batch": False,
    "catalogue_negatives": 0,
    "train_negatives": 3,
}
DOCUMENTS = {"strong": sections(), "paper": sections(**PAPERS)}


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(folder: Path) -> None:
    """Losses over the whole batch, uniformity and shared negatives among them, and every gradient; batches of five and
    seven cannot be halved. Two kinds of student."""
    single = {kind: steps_of(folder, document) for kind, document in DOCUMENTS.items()}
    results = [json.loads(file.read_text()) for file in sorted(folder.glob("steps-*.json"))]
    assert len(results) == 2
    for result in results:
        assert result.keys() == single.keys()
        for kind, numbers in single.items():
            for name, values in numbers.items():
                np.testing.assert_allclose(
                    result[kind][name], values, rtol=2e-3, atol=1e-5, err_msg=f"{kind}: {name}"
                )


@pytest.mark.slow
def test_a_lost_process_restarts_from_the_last_checkpoint_with_the_same_bytes(folder: Path) -> None:
    """With dropout: what a step draws does not depend on the step that its process started from."""
    assert (folder / "cut/lost").read_text() == "the second"
    for file in ("out/model.safetensors", "curve.json", "metrics.json"):
        assert (folder / "whole" / file).read_bytes() == (folder / "cut" / file).read_bytes(), file
    assert not (folder / "cut" / "scratch").exists()


def train_in(folder: Path) -> None:
    """The stage `student` in a folder with its inputs and params.yaml."""
    os.chdir(folder)
    names = ("splits", "teacher", "backbone", "scratch", "out")
    arguments = [part for name in names for part in (f"--{name}", name)]
    train_student.main([*arguments, "--metrics", "metrics.json", "--curve", "curve.json"])


def lose_the_second() -> None:
    """Kill the process of rank 1 in its next step once there is a checkpoint, but not again after the restart."""
    if os.environ["RANK"] == "0" or Path("lost").exists():
        return
    step = StudentTrainer.step

    def fatal(self: StudentTrainer, number: int) -> Any:
        if Path("scratch/state.json").exists():
            Path("lost").write_text("the second")
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, number)

    StudentTrainer.step = fatal  # type: ignore[method-assign]


def main(folder: Path) -> None:
    """Compute steps, train without interruption, and train with a loss; after the loss only the last is done again."""
    distributed.init_process_group()
    if not (folder / "whole/out").exists():
        documents = json.loads((folder / "params.json").read_text())
        numbers = {kind: steps_of(folder, document) for kind, document in documents.items()}
        (folder / f"steps-{distributed.rank()}.json").write_text(json.dumps(numbers))
        train_in(folder / "whole")
    os.chdir(folder / "cut")
    lose_the_second()
    train_in(folder / "cut")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
