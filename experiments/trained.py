"""Models that experiments share: trained once for their settings, store and seed, then found again.

An interrupted training goes on from its last validation."""

from pathlib import Path
from typing import Any

import yaml

from llmsrec.comparison.cache_keys import code_of, learned_from
from llmsrec.comparison.teachers import teacher_of
from llmsrec.core.config import from_mapping, read_section
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import Backbone
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.trainer import train_student
from llmsrec.training.checkpoints import Checkpoints, fingerprint
from llmsrec.training.loop import MetricLog

PARAMS = Path("params.yaml")


def settings(texts: list[str]) -> dict[str, Any]:
    """What `--set key=value ...` changes of the section `student`."""
    parts = (text.partition("=") for text in texts)
    return {key: yaml.safe_load(value) for key, _, value in parts}


def trained_teacher(
    values: dict[str, Any], splits: Splits, folder: Path, *, name: str, where: str
) -> SASRec:
    """`values` is a section `teacher`, read from `where`."""
    return teacher_of(from_mapping(TeacherConfig, values, where), splits, folder, name)


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
    code = code_of(train_student)
    key = fingerprint(config, teacher.digest, backbone.digest, code, *learned_from(splits))
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
