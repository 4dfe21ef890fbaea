"""Teacher and student of one store on a bare machine with a GPU, in slices of time; then both beside plain rivals.

    python -m experiments.gpu --splits splits --backbone smollm2 --out out/toys --minutes 4 --set seed=0

`--backbone` is a folder in Hugging Face's layout, of which `--layers` keeps the first few. Settings are those of
params.yaml; `--set` changes one of the student's. The same command continues from the last validation; the tables are
those of the best student so far. It needs only the packages that docs/gpu.md lists, and also runs on a CPU.

`--out` gets teacher/, student/, table.csv (a row for each number, with its interval), ranks.npz (the ranks of each
test user), vectors.npz (the student's vectors, in half precision) and run.json (device, steps, seconds).
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

from experiments.hybrids import (
    HYBRIDS,
    Ranked,
    Shown,
    TitleOverlap,
    Weights,
    ranked,
    table,
    vector_scores,
    weighed,
)
from llmsrec import parallel
from llmsrec.config import from_mapping, load_section, read_section
from llmsrec.data.splits import Part, Splits
from llmsrec.errors import ConfigError, LLMSRecError
from llmsrec.files import write_json
from llmsrec.student.backbone import Backbone, load_encoder
from llmsrec.student.config import StudentConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.student.train import new_student, stage_of
from llmsrec.teacher.ranker import TeacherRanker
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import TeacherConfig, train_teacher
from llmsrec.training import Checkpoints, MetricLog, fingerprint, generator, seed_torch, train

RESAMPLES = 1_000


class SliceOverError(Exception):
    """The time of this slice is used up; what was trained is kept."""


class Slice(Checkpoints):
    """Ends a training after a checkpoint if there is no time for another stretch as long as the last."""

    def __init__(self, folder: Path, key: str, deadline: float) -> None:
        super().__init__(folder, key)
        self.deadline, self.last = deadline, time.monotonic()

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        print(
            "  ".join(f"{name} {value:.4g}" for name, value in state["rows"][-1].items()),
            flush=True,
        )
        now = time.monotonic()
        if now + (now - self.last) > self.deadline:
            raise SliceOverError
        self.last = now


@dataclass(frozen=True)
class Run:
    """Where one store's models lie, and what trains them."""

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
        """Trained if it is not there yet, from the student's seed."""
        folder = self.out / "teacher"
        if not folder.exists():
            config = replace(
                load_section(TeacherConfig, "teacher", self.params), seed=self.student.seed
            )
            log = MetricLog(self.out / "teacher_curve.json")
            train_teacher(self.splits, config, log, Checkpoints(None, ""), self.device).save(folder)
            log.save()
        return SASRec.load(folder)


def opened(folder: Path, layers: int | None, device: torch.device) -> Backbone:
    """The language model in a folder, or its first layers and its last norm; in bfloat16 on a GPU."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    found = load_encoder(str(folder), device, dtype)
    model, depth = found.model, len(found.model.layers)
    if layers is not None and not 1 <= layers <= depth:
        raise ConfigError(f"--layers is {layers}; {folder} has {depth} layers")
    model.layers, model.config.num_hidden_layers = model.layers[:layers], layers or depth
    digest = found.digest if layers is None else f"{found.digest}-{layers}"
    return Backbone(model, found.tokenizer, digest)


def taught(
    run: Run, teacher: SASRec, backbone: Backbone, minutes: float
) -> tuple[LLMSRec, dict[str, Any]]:
    """The best student so far, and how far its training has come."""
    config, splits = run.student, run.splits
    key = fingerprint(
        config, teacher.digest, backbone.digest, splits.sequences.items, splits.train_lengths
    )
    kept = Slice(run.out / "state", key, time.monotonic() + 60 * minutes)
    log = MetricLog(run.out / "student_curve.json")
    seed_torch(config.seed)
    model = new_student(config, backbone, teacher, splits.catalog)
    trainer, plan = stage_of(model, splits, config)
    try:
        train(trainer, plan, log, kept)
    except SliceOverError:
        print("the slice is over; the same command continues", flush=True)
    state = kept.load()
    assert state is not None, "there is a checkpoint after each validation"
    model.heads.load_state_dict(state["best"])
    log.save()
    model.eval().save_pretrained(run.out / "student")
    return model, {"steps": state["step"], "steps_planned": plan.looks[-1], **state["stopping"]}


class Systems:
    """Teacher, student and titles, ready to rank the users of a part."""

    def __init__(self, run: Run, teacher: SASRec, student: LLMSRec) -> None:
        self.splits = run.splits
        self.content = TitleOverlap(run.splits.catalog.titles)
        self.teacher = TeacherRanker(teacher.to(run.device))
        self.student = StudentRanker(student, encode_items(student, run.splits.num_items))

    def shown(self, part: Part, *, shuffled: bool = False) -> Shown:
        histories = self.splits.histories(part)
        if shuffled:
            histories = histories.shuffled(generator(0, 0))
        scores = {
            "teacher": vector_scores(self.teacher, histories),
            "student": vector_scores(self.student, histories),
            "content": self.content.scores(histories),
        }
        return Shown(self.splits, part, scores)


def compared(systems: Systems) -> tuple[dict[str, Ranked], dict[str, Weights]]:
    """Test ranks of each system alone, of the hybrids, and of teacher and student before shuffled histories."""
    valid, test = systems.shown("valid"), systems.shown("test")
    weights = {" + ".join(names): weighed(valid, names) for names in HYBRIDS}
    alone = {name: {name: 1.0} for name in ("teacher", "student", "content")}
    chosen = alone | weights
    found = dict(zip(chosen, ranked(test, list(chosen.values())), strict=True))
    shuffled = systems.shown("test", shuffled=True)
    for name in ("teacher", "student"):
        found[f"{name}, shuffled"] = ranked(shuffled, [alone[name]])[0]
    return found, weights


def save(run: Run, systems: Systems, about: dict[str, Any]) -> None:
    found, weights = compared(systems)
    rows = table(found, weights, RESAMPLES).assign(**about)
    rows.to_csv(run.out / "table.csv", index=False)
    with_columns = rows[["system", "protocol", "metric", "value", "low", "high", "weights"]]
    print(with_columns.to_string(index=False, float_format="%.4f"), flush=True)
    ranks: dict[str, Any] = {
        f"{name}/{protocol}/{part}": getattr(getattr(one, protocol), part).astype(np.int32)
        for name, one in found.items()
        for protocol in ("sampled", "full")
        for part in ("better", "ties")
    }
    np.savez_compressed(run.out / "ranks.npz", **ranks)
    users = {part: run.splits.histories(part) for part in ("valid", "test")}
    vectors = {part: systems.student.user_vectors(shown) for part, shown in users.items()}
    vectors["items"] = systems.student.item_vectors.cpu().numpy()
    halves: dict[str, Any] = {name: matrix.astype(np.float16) for name, matrix in vectors.items()}
    np.savez_compressed(run.out / "vectors.npz", **halves)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "python -m experiments.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    for name in ("splits", "backbone", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="to train the student in")
    parser.add_argument("--layers", type=int, help="of the backbone, from the first; default: all")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--set", nargs="*", default=[], dest="changes", metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    parts = (text.partition("=") for text in args.changes)
    changes = {key: yaml.safe_load(value) for key, _, value in parts}
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(Splits.load(args.splits), args.params, changes, args.out, parallel.start())
    clock = [time.monotonic()]
    teacher = run.teacher()
    clock.append(time.monotonic())
    student, reached = taught(
        run, teacher, opened(args.backbone, args.layers, run.device), args.minutes
    )
    clock.append(time.monotonic())
    about = {"backbone": args.backbone.name, "layers": args.layers or "all", "seed": run.student.seed,
             "steps": reached["steps"], "steps_planned": reached["steps_planned"]}  # fmt: skip
    save(run, Systems(run, teacher, student), about)
    clock.append(time.monotonic())
    seconds = dict(zip(("teacher", "student", "comparison"), np.diff(clock).tolist(), strict=True))
    name = torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu"
    write_json(args.out / "run.json", {"device": name, **about, **reached, "seconds": seconds})


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except LLMSRecError as error:
        sys.exit(f"error: {error}")
