"""Train teacher and student of one dataset on a bare machine with a GPU, in slices of minutes, and compare them.

    python -m benchmarks.gpu_training --splits splits --backbone smollm2 --out out/toys --minutes 4 --set seed=0

`--backbone` is a folder in Hugging Face's layout; `--layers` uses its first layers only. Settings are those of
params.yaml; `--set` changes some of the student's. The same command resumes from the last validation. The tables are
those of the best student so far. docs/howto/gpu.md lists the packages that it needs. It also runs on a CPU.

`--out` gets teacher/, student/, recommender/, table.csv (one row per number, with its interval), ranks.npz (the ranks
of each test user), vectors.npz (the student's vectors, in half precision) and run.json (device, steps, seconds).
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from benchmarks.figures import timed
from llmsrec.core.config import PARAMS, from_mapping, load_section, read_section
from llmsrec.core.errors import ConfigError, LLMSRecError
from llmsrec.core.files import sha256, write_json
from llmsrec.data.splits import Splits
from llmsrec.evaluation.bootstrap import interval, resampled_means
from llmsrec.llm.backbone import Backbone, load_encoder
from llmsrec.ranking.metrics import Ranks, hit_rate, ndcg
from llmsrec.ranking.protocol import Evaluation, evaluate
from llmsrec.ranking.ranker import cached
from llmsrec.recommender.fitted import RecommenderConfig, fit_recommender
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig, train_teacher
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.trainer import fit_student, new_student
from llmsrec.training.checkpoints import Checkpoints, fingerprint
from llmsrec.training.distributed import init_process_group
from llmsrec.training.loop import MetricLog
from llmsrec.training.seeding import generator, seed_torch

RESAMPLES = 1_000
METRICS = {"ndcg@10": ndcg, "hr@10": hit_rate}


class TimeIsUpError(Exception):
    """The minutes of this slice are over; the checkpoint is saved."""


class TimedCheckpoints(Checkpoints):
    """Raises TimeIsUpError after a checkpoint if another interval as long as the last would end too late."""

    def __init__(self, folder: Path, key: str, deadline: float) -> None:
        super().__init__(folder, key)
        self.deadline, self.last = deadline, time.monotonic()

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        metrics = state["rows"][-1].items()
        print("  ".join(f"{name} {value:.4g}" for name, value in metrics), flush=True)
        now = time.monotonic()
        if now + (now - self.last) > self.deadline:
            raise TimeIsUpError
        self.last = now


@dataclass(frozen=True)
class Run:
    """The data and settings of a run, and the folder of its models."""

    splits: Splits
    params: Path
    changes: dict[str, Any]  # of the section `student`
    out: Path
    device: torch.device

    @property
    def student(self) -> StudentConfig:
        values = read_section("student", self.params) | self.changes
        return from_mapping(StudentConfig, values, f"{self.params}: student")

    def teacher(self) -> SASRec:
        """The saved teacher; if there is none, it is trained with the student's seed first."""
        folder = self.out / "teacher"
        if not folder.exists():
            config = load_section(TeacherConfig, "teacher", self.params)
            config = replace(config, seed=self.student.seed)
            log = MetricLog(self.out / "teacher_curve.json")
            train_teacher(self.splits, config, log, Checkpoints(None, ""), self.device).save(folder)
            log.save()
        return SASRec.load(folder)


def open_backbone(folder: Path, layers: int | None, device: torch.device) -> Backbone:
    """The language model in a folder, or its first layers and its last norm; in bfloat16 on a GPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    backbone = load_encoder(str(folder), device, dtype)
    model, depth = backbone.model, len(backbone.model.layers)
    if layers is not None and not 1 <= layers <= depth:
        raise ConfigError(f"--layers is {layers}; {folder} has {depth} layers")
    model.layers, model.config.num_hidden_layers = model.layers[:layers], layers or depth
    digest = backbone.digest if layers is None else f"{backbone.digest}-{layers}"
    return Backbone(model, backbone.tokenizer, digest)


def train_slice(
    run: Run, teacher: SASRec, backbone: Backbone, minutes: float
) -> tuple[LLMSRec, dict[str, Any]]:
    """The best student so far, and the progress of its training."""
    config, splits = run.student, run.splits
    key = fingerprint(
        config, teacher.digest, backbone.digest, splits.sequences.items, splits.train_lengths
    )
    checkpoints = TimedCheckpoints(run.out / "state", key, time.monotonic() + 60 * minutes)
    log = MetricLog(run.out / "student_curve.json")
    seed_torch(config.seed)
    model = new_student(config, backbone, teacher, splits.catalog)
    finished = True
    try:
        fit_student(model, splits, config, log, checkpoints)
    except TimeIsUpError:
        finished = False
        print("the time of this slice is up; the same command resumes", flush=True)
    state = checkpoints.load()
    assert state is not None, "there is a checkpoint after each validation"
    model.heads.load_state_dict(state["best"])
    log.save()
    model.eval().save_pretrained(run.out / "student")
    return model, {"steps": state["step"], "finished": finished, **state["stopping"]}


def compare(run: Run, student: LLMSRec) -> dict[str, Evaluation]:
    """Test ranks of each part, of the recommender, and of teacher and student with shuffled histories.

    Also writes the recommender and the student's vectors."""
    splits, config = run.splits, load_section(RecommenderConfig, "recommender", run.params)
    fitted = fit_recommender(
        student, splits, config, sha256(run.out / "student" / "model.safetensors")
    )
    fitted.save(run.out / "recommender")
    parts = fitted.parts(student, splits.catalog)
    by_name = {name: cached(part) for name, part in parts.by_name().items()}
    shuffled = splits.histories("test").shuffled(generator(0, 0))
    ranks = {
        name: evaluate(ranker, splits, "test")
        for name, ranker in (by_name | fitted.hybrids(by_name)).items()
    }
    for name in ("teacher", "student"):
        ranks[f"{name}, shuffled"] = evaluate(by_name[name], splits, "test", histories=shuffled)
    vectors = {
        "valid": parts.student.user_vectors(splits.histories("valid")),
        "test": ranks["student"].users,
        "items": fitted.item_vectors,
    }
    save_arrays(run.out / "vectors.npz", vectors, np.float16)
    return ranks


def save_comparison(run: Run, student: LLMSRec, labels: dict[str, Any]) -> None:
    """Write table.csv and ranks.npz; `labels` are columns of the table."""
    ranks = {
        (name, protocol): getattr(both, protocol)
        for name, both in compare(run, student).items()
        for protocol in ("sampled", "full")
    }
    rows = metrics_table(ranks).assign(**labels)
    rows.to_csv(run.out / "table.csv", index=False)
    print(rows.to_string(index=False, float_format="%.4f"), flush=True)
    arrays = {
        f"{name}/{protocol}/{field}": getattr(one, field)
        for (name, protocol), one in ranks.items()
        for field in ("better", "ties")
    }
    save_arrays(run.out / "ranks.npz", arrays, np.int32)


def metrics_table(ranks: dict[tuple[str, str], Ranks]) -> pd.DataFrame:
    """A row per system, protocol and metric, with its interval over users."""
    keys = [(*key, metric) for key in ranks for metric in METRICS]
    values = np.column_stack(
        [METRICS[metric](ranks[name, protocol], 10) for name, protocol, metric in keys]
    )
    drawn = resampled_means(values, RESAMPLES, seed=0)
    means = [interval(float(values[:, at].mean()), drawn[:, at]) for at in range(len(keys))]
    table = pd.DataFrame(keys, columns=["system", "protocol", "metric"])
    return table.join(pd.DataFrame([mean.as_dict() for mean in means])).assign(users=len(values))


def save_arrays(file: Path, arrays: dict[str, np.ndarray], dtype: type[Any]) -> None:
    converted: dict[str, Any] = {name: array.astype(dtype) for name, array in arrays.items()}
    np.savez_compressed(file, **converted)


def parse(argv: list[str]) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_training", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    for name in ("splits", "backbone", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of the student's training")
    parser.add_argument("--layers", type=int, help="the first layers to use; default: all")
    parser.add_argument("--params", type=Path, default=PARAMS)
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    args = parse(argv)
    parts = (text.partition("=") for text in args.changes)
    changes = {key: yaml.safe_load(value) for key, _, value in parts}
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(Splits.load(args.splits), args.params, changes, args.out, init_process_group())
    teacher, teacher_seconds = timed(run.teacher)
    backbone = open_backbone(args.backbone, args.layers, run.device)
    (student, progress), student_seconds = timed(
        lambda: train_slice(run, teacher, backbone, args.minutes)
    )
    labels = {"backbone": args.backbone.name, "layers": args.layers or "all", "seed": run.student.seed,
              "steps": progress["steps"], "finished": progress["finished"]}  # fmt: skip
    _, comparison = timed(lambda: save_comparison(run, student, labels))
    seconds = {"teacher": teacher_seconds, "student": student_seconds, "comparison": comparison}
    name = torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu"
    write_json(args.out / "run.json", {"device": name, **labels, **progress, "seconds": seconds})


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LLMSRecError as error:
        sys.exit(f"error: {error}")
