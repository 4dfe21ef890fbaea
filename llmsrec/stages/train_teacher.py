"""Splits -> teacher."""

import argparse
from pathlib import Path

from llmsrec import parallel
from llmsrec.config import load_section
from llmsrec.data.seen import fit_to_go_on
from llmsrec.data.splits import Splits
from llmsrec.files import write_json
from llmsrec.stages import run
from llmsrec.teacher.train import TeacherConfig, train_teacher
from llmsrec.teacher.transfer import teacher_of_champion
from llmsrec.training import Checkpoints, MetricLog, fingerprint
from llmsrec.unit import RetrainingConfig


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "champion", "out", "scratch", "metrics", "curve"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(TeacherConfig, "teacher")
    splits = Splits.load(args.splits)
    champion = load_section(RetrainingConfig, "retraining").start(args.champion)
    champion = fit_to_go_on(champion, splits)
    start = teacher_of_champion(champion, config.network(splits.num_items), splits.catalog)
    log = MetricLog(args.curve)
    key = fingerprint(config, start and start.digest, splits.sequences.items, splits.train_lengths)
    checkpoints = Checkpoints(args.scratch, key)
    model = train_teacher(splits, config, log, checkpoints, parallel.start(), start)
    if not parallel.first():
        return
    model.save(args.out)
    log.save()
    best = max(log.rows, key=lambda row: row["ndcg@10"]) if config.select else log.rows[-1]
    summary = {
        "valid": {name: best[name] for name in ("ndcg@10", "hr@10")},
        "epoch": best["step"],
        "went_on_from_champion": start is not None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_json(args.metrics, summary)
    checkpoints.clear()


if __name__ == "__main__":
    run(main)
