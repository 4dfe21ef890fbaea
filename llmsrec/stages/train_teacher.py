"""Stage `teacher`: train SASRec on the splits."""

from llmsrec.core.config import load_section
from llmsrec.core.files import write_json
from llmsrec.data.splits import Splits
from llmsrec.sequential.trainer import TeacherConfig, train_teacher
from llmsrec.stages import paths, run
from llmsrec.training import distributed
from llmsrec.training.checkpoints import Checkpoints, fingerprint
from llmsrec.training.loop import MetricLog


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "splits", "out", "scratch", "metrics", "curve")
    config = load_section(TeacherConfig, "teacher")
    splits = Splits.load(args.splits)
    log = MetricLog(args.curve)
    key = fingerprint(config, splits.sequences.items, splits.train_lengths)
    checkpoints = Checkpoints(args.scratch, key)
    model = train_teacher(splits, config, log, checkpoints, distributed.init_process_group())
    if not distributed.is_main_process():
        return
    model.save(args.out)
    log.save()
    best = max(log.rows, key=lambda row: row["ndcg@10"]) if config.keep_best else log.rows[-1]
    summary = {
        "valid": {name: best[name] for name in ("ndcg@10", "hr@10")},
        "epoch": best["step"],
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    write_json(args.metrics, summary)
    checkpoints.clear()


if __name__ == "__main__":
    run(main)
