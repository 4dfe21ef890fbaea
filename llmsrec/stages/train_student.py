"""Splits, teacher and backbone -> student."""

import argparse
from pathlib import Path

import torch

from llmsrec.config import load_section
from llmsrec.data.splits import Splits
from llmsrec.files import write_json
from llmsrec.stages import run
from llmsrec.student.backbone import load_backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.train import train_student
from llmsrec.teacher.sasrec import SASRec
from llmsrec.training import Checkpoints, MetricLog, fingerprint


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "teacher", "backbone", "out", "scratch", "metrics", "curve"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(StudentConfig, "student")
    splits = Splits.load(args.splits)
    teacher = SASRec.load(args.teacher)
    backbone = load_backbone(args.backbone, "cuda" if torch.cuda.is_available() else "cpu")
    log = MetricLog(args.curve)
    data = (splits.sequences.items, splits.train_lengths)
    checkpoints = Checkpoints(
        args.scratch, fingerprint(config, teacher.digest, backbone.digest, *data)
    )
    model = train_student(splits, teacher, backbone, config, log, checkpoints)
    model.save_pretrained(args.out)
    log.save()
    best = max(log.rows, key=lambda row: row[config.select_by])
    summary = {
        "valid": {name: best[name] for name in ("hr@10", "ndcg@10")},
        "step": best["step"],
        "parameters": sum(parameter.numel() for parameter in model.heads.parameters()),
    }
    write_json(args.metrics, summary)
    checkpoints.clear()


if __name__ == "__main__":
    run(main)
