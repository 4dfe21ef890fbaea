"""Train teacher and student of one dataset on a bare machine with a GPU, in slices of minutes, and compare them.

    python -m benchmarks.gpu_training --splits splits --backbone smollm2 --out out/toys --minutes 4 --set seed=0

`--backbone` is a folder in Hugging Face's layout; `--layers` uses its first layers only. Settings are those of
params.yaml; `--set` changes some of the student's. The same command resumes from the last validation. The tables are
those of the best student so far. docs/howto/gpu.md lists the packages that it needs. It also runs on a CPU.

`--out` gets teacher/, student/, table.csv (one row per number, with its interval), ranks.npz (the ranks of each test
user), vectors.npz (the student's vectors, in half precision) and run.json (device, steps, seconds).
"""

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.hybrids import (
    HYBRIDS,
    BothRanks,
    ScoredPart,
    TitleOverlap,
    Weights,
    best_weights,
    metrics_table,
    ranks_of,
    vector_scores,
)
from llmsrec.core.config import PARAMS, from_mapping, load_section, read_section
from llmsrec.core.errors import ConfigError, LLMSRecError
from llmsrec.core.files import write_json
from llmsrec.data.splits import Part, Splits
from llmsrec.llm.backbone import Backbone, load_encoder
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.sequential.ranker import SequentialRanker
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


class Systems:
    """Teacher, student and title overlap, to score the users of a part."""

    def __init__(self, run: Run, teacher: SASRec, student: LLMSRec) -> None:
        self.splits = run.splits
        self.content = TitleOverlap(run.splits.catalog.titles)
        self.teacher = SequentialRanker(teacher.to(run.device))
        self.student = RetrievalRanker(student, encode_items(student, run.splits.num_items))

    def scored(self, part: Part, *, shuffled: bool = False) -> ScoredPart:
        """The scores of all systems, with shuffled histories if requested."""
        histories = self.splits.histories(part)
        if shuffled:
            histories = histories.shuffled(generator(0, 0))
        scores = {
            "teacher": vector_scores(self.teacher, histories),
            "student": vector_scores(self.student, histories),
            "content": self.content.scores(histories),
        }
        return ScoredPart(self.splits, part, scores)


def compare(systems: Systems) -> tuple[dict[str, BothRanks], dict[str, Weights]]:
    """Test ranks of each system, of the hybrids, and of teacher and student with shuffled histories; the weights."""
    valid, test = systems.scored("valid"), systems.scored("test")
    weights = {" + ".join(names): best_weights(valid, names) for names in HYBRIDS}
    single = {name: {name: 1.0} for name in ("teacher", "student", "content")}
    every = single | weights
    ranks = dict(zip(every, ranks_of(test, list(every.values())), strict=True))
    shuffled = systems.scored("test", shuffled=True)
    for name in ("teacher", "student"):
        ranks[f"{name}, shuffled"] = ranks_of(shuffled, [single[name]])[0]
    return ranks, weights


def save_comparison(run: Run, systems: Systems, labels: dict[str, Any]) -> None:
    """Write table.csv, ranks.npz and vectors.npz; `labels` are columns of the table."""
    ranks, weights = compare(systems)
    rows = metrics_table(ranks, weights, RESAMPLES).assign(**labels)
    rows.to_csv(run.out / "table.csv", index=False)
    columns = ["system", "protocol", "metric", "value", "low", "high", "weights"]
    print(rows[columns].to_string(index=False, float_format="%.4f"), flush=True)
    arrays: dict[str, Any] = {
        f"{name}/{protocol}/{field}": getattr(getattr(both, protocol), field).astype(np.int32)
        for name, both in ranks.items()
        for protocol in ("sampled", "full")
        for field in ("better", "ties")
    }
    np.savez_compressed(run.out / "ranks.npz", **arrays)
    users = {part: run.splits.histories(part) for part in ("valid", "test")}
    vectors = {part: systems.student.user_vectors(rows) for part, rows in users.items()}
    vectors["items"] = systems.student.item_vectors.cpu().numpy()
    halves: dict[str, Any] = {name: matrix.astype(np.float16) for name, matrix in vectors.items()}
    np.savez_compressed(run.out / "vectors.npz", **halves)


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
    clock = [time.monotonic()]
    teacher = run.teacher()
    clock.append(time.monotonic())
    backbone = open_backbone(args.backbone, args.layers, run.device)
    student, progress = train_slice(run, teacher, backbone, args.minutes)
    clock.append(time.monotonic())
    labels = {"backbone": args.backbone.name, "layers": args.layers or "all", "seed": run.student.seed,
              "steps": progress["steps"], "finished": progress["finished"]}  # fmt: skip
    save_comparison(run, Systems(run, teacher, student), labels)
    clock.append(time.monotonic())
    seconds = dict(zip(("teacher", "student", "comparison"), np.diff(clock).tolist(), strict=True))
    name = torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu"
    write_json(args.out / "run.json", {"device": name, **labels, **progress, "seconds": seconds})


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LLMSRecError as error:
        sys.exit(f"error: {error}")
