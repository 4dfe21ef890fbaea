"""Stage `student`: train LLM-SRec on the splits, with the teacher and the backbone."""

from llmsrec.core.config import load_section
from llmsrec.core.files import write_json
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import load_backbone
from llmsrec.sequential.sasrec import SASRec
from llmsrec.stages import paths, run
from llmsrec.student.config import StudentConfig
from llmsrec.student.trainer import train_student
from llmsrec.training import distributed
from llmsrec.training.checkpoints import Checkpoints, fingerprint
from llmsrec.training.loop import MetricLog


def main(argv: list[str] | None = None) -> None:
    args = paths(
        __doc__, argv, "splits", "teacher", "backbone", "out", "scratch", "metrics", "curve"
    )
    config = load_section(StudentConfig, "student")
    splits = Splits.load(args.splits)
    teacher = SASRec.load(args.teacher)
    backbone = load_backbone(args.backbone, distributed.init_process_group())
    log = MetricLog(args.curve)
    data = splits.sequences.items, splits.train_lengths
    key = fingerprint(config, teacher.digest, backbone.digest, *data)
    checkpoints = Checkpoints(args.scratch, key)
    model = train_student(splits, teacher, backbone, config, log, checkpoints)
    if not distributed.is_main_process():
        return
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
