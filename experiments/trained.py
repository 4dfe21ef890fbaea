"""Models that experiments share: trained once for their settings, store and seed, then found again.

An interrupted training goes on from its last validation."""

import hashlib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import llmsrec
from llmsrec.config import from_mapping, read_section
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.student.backbone import Backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.train import train_student
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig, train_teacher
from llmsrec.training import Checkpoints, MetricLog, fingerprint


@dataclass(frozen=True)
class ShuffledTraining(Splits):
    """The same store, each training history permuted once; what is evaluated is as ever (SPEC E2, all stages)."""

    shuffle_seed: int

    @classmethod
    def of(cls, splits: Splits, seed: int) -> "ShuffledTraining":
        kept = {field.name: getattr(splits, field.name) for field in fields(splits)}
        return cls(**kept, shuffle_seed=seed)

    @property
    def train(self) -> Sequences:
        return super().train.shuffled(np.random.default_rng(self.shuffle_seed))


PARAMS = Path("params.yaml")


def settings(texts: list[str]) -> dict[str, Any]:
    """What `--set key=value ...` changes of the section `student`."""
    parts = (text.partition("=") for text in texts)
    return {key: yaml.safe_load(value) for key, _, value in parts}


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def teacher_of(
    values: dict[str, Any], splits: Splits, folder: Path, *, name: str, where: str
) -> SASRec:
    """`values` is a section `teacher`, read from `where`."""
    config = from_mapping(TeacherConfig, values, where)
    key = fingerprint(config, *_data(splits))
    folder = folder / f"{name}-{key[:12]}"
    if not (folder / "model").exists():
        log, checkpoints = MetricLog(folder / "curve.json"), Checkpoints(folder / "state", key)
        model = train_teacher(splits, config, log, checkpoints, device())
        log.save()
        model.save(folder / "model")
        checkpoints.clear()
    return SASRec.load(folder / "model")


def _data(splits: Splits) -> tuple[Any, ...]:
    """What a training depends on beside its settings: the histories, the texts, what validates, and the code."""
    held_out = [
        part for found in splits.candidates.values() for part in (found.items, found.targets)
    ]
    rows = splits.sequences
    return (
        code_digest("teacher", "student", "training.py", "data/sequences.py"),
        splits.catalog.titles, rows.items, rows.timestamps, splits.train.items, splits.train_lengths,
        *held_out,
    )  # fmt: skip


@cache
def code_digest(*parts: str) -> str:
    """Of modules and packages of the library."""
    root, digest = Path(llmsrec.__file__).parent, hashlib.sha256()
    for part in parts:
        for file in [root / part] if part.endswith(".py") else sorted((root / part).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


def student_of(
    changes: dict[str, Any],
    splits: Splits,
    teacher: SASRec,
    backbone: Backbone,
    folder: Path,
) -> tuple[LLMSRec, Path]:
    """The student of params.yaml with these `changes`, and the folder that is its own."""
    section = read_section("student", PARAMS) | changes
    config = from_mapping(StudentConfig, section, f"{PARAMS}: student")
    key = fingerprint(config, teacher.digest, backbone.digest, *_data(splits))
    folder = folder / f"student-{key[:12]}"
    if not (folder / "model").exists():
        log, checkpoints = MetricLog(folder / "curve.json"), Checkpoints(folder / "state", key)
        model = train_student(splits, teacher, backbone, config, log, checkpoints)
        log.save()
        model.save_pretrained(folder / "model")
        checkpoints.clear()
    model = LLMSRec.from_pretrained(
        folder / "model", backbone=backbone, teacher=teacher, catalog=splits.catalog
    )
    return model, folder
