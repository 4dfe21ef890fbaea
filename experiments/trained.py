"""Models that experiments share: trained once for their settings, store and seed, then found again.

An interrupted training goes on from its last validation."""

from pathlib import Path
from typing import Any

import torch

from llmsrec.config import from_mapping
from llmsrec.data.splits import Splits
from llmsrec.student.backbone import Backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.train import train_student
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig, train_teacher
from llmsrec.training import Checkpoints, MetricLog, fingerprint


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def teacher_of(
    values: dict[str, Any], splits: Splits, folder: Path, *, name: str, where: str
) -> SASRec:
    """`values` is a section `teacher`, read from `where`."""
    config = from_mapping(TeacherConfig, values, where)
    key = fingerprint(config, splits.sequences.items, splits.train_lengths)
    folder = folder / f"{name}-{key[:12]}"
    if not (folder / "model").exists():
        log, checkpoints = MetricLog(folder / "curve.json"), Checkpoints(folder / "state", key)
        model = train_teacher(splits, config, log, checkpoints, device())
        log.save()
        model.save(folder / "model")
        checkpoints.clear()
    return SASRec.load(folder / "model")


def student_of(
    config: StudentConfig,
    splits: Splits,
    teacher: SASRec,
    backbone: Backbone,
    folder: Path,
    *,
    name: str,
) -> tuple[LLMSRec, Path]:
    """The student, and the folder that is its own."""
    data = (splits.sequences.items, splits.train_lengths)
    key = fingerprint(config, teacher.digest, backbone.digest, *data)
    folder = folder / f"{name}-{key[:12]}"
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
