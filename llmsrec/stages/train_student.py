"""Splits, teacher and backbone -> student."""

import argparse
from dataclasses import replace
from pathlib import Path

from llmsrec import parallel
from llmsrec.config import load_section
from llmsrec.data.seen import fit_to_go_on
from llmsrec.data.splits import Splits
from llmsrec.files import write_json
from llmsrec.stages import run
from llmsrec.student.backbone import load_backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.train import train_student
from llmsrec.student.transfer import student_of_champion
from llmsrec.teacher.sasrec import SASRec
from llmsrec.training import Checkpoints, MetricLog, fingerprint
from llmsrec.unit import RetrainingConfig


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "teacher", "backbone", "champion", "out", "scratch", "metrics", "curve"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(StudentConfig, "student")
    splits = Splits.load(args.splits)
    teacher = SASRec.load(args.teacher)
    backbone = load_backbone(args.backbone, parallel.start())
    retraining = load_section(RetrainingConfig, "retraining")
    champion = fit_to_go_on(retraining.start(args.champion), splits)
    start = student_of_champion(champion, config.model(backbone, teacher), teacher)
    if start is not None:
        config = replace(config, epochs=retraining.student_epochs)
    log = MetricLog(args.curve)
    learned = [] if start is None else [tensor.numpy() for tensor in start.values()]
    data = (splits.sequences.items, splits.train_lengths, *learned)
    checkpoints = Checkpoints(
        args.scratch, fingerprint(config, teacher.digest, backbone.digest, *data)
    )
    model = train_student(splits, teacher, backbone, config, log, checkpoints, start)
    if not parallel.first():
        return
    model.save_pretrained(args.out)
    log.save()
    best = max(log.rows, key=lambda row: row[config.select_by])
    summary = {
        "valid": {name: best[name] for name in ("hr@10", "ndcg@10")},
        "step": best["step"],
        "went_on_from_champion": start is not None,
        "parameters": sum(parameter.numel() for parameter in model.heads.parameters()),
    }
    write_json(args.metrics, summary)
    checkpoints.clear()


if __name__ == "__main__":
    run(main)
