"""A teacher for its settings and its store: trained once, then found again. An interrupted training goes on."""

from pathlib import Path

from llmsrec.comparison.cache_keys import code_of, learned_from
from llmsrec.core.files import exclusive_lock
from llmsrec.data.splits import Splits
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig, train_teacher
from llmsrec.training.checkpoints import Checkpoints, fingerprint
from llmsrec.training.distributed import default_device
from llmsrec.training.loop import MetricLog


def teacher_of(config: TeacherConfig, splits: Splits, folder: Path, name: str) -> SASRec:
    """`name` and a digest of all it depends on name its place in `folder`."""
    key = fingerprint(config, code_of(train_teacher), *learned_from(splits))
    folder = folder / f"{name}-{key[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder):  # stages of several systems may ask for it at a time
        if not (folder / "model").exists():
            log, checkpoints = MetricLog(folder / "curve.json"), Checkpoints(folder / "state", key)
            model = train_teacher(splits, config, log, checkpoints, default_device())
            log.save()
            model.save(folder / "model")
            checkpoints.clear()
    return SASRec.load(folder / "model")
