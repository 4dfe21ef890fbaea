"""Encode the items and weigh teacher, student and item texts on the validation targets."""

from llmsrec.core.config import load_section
from llmsrec.core.files import sha256, write_json
from llmsrec.data.splits import Splits
from llmsrec.recommender.fitted import RecommenderConfig, fit_recommender
from llmsrec.stages import paths, run
from llmsrec.student.model import load_student


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "splits", "teacher", "backbone", "student", "out", "metrics")
    config = load_section(RecommenderConfig, "recommender")
    splits = Splits.load(args.splits)
    student = load_student(args.student, args.backbone, args.teacher, splits.catalog)
    digest = sha256(args.student / "model.safetensors")
    fitted = fit_recommender(student, splits, config, digest)
    fitted.save(args.out)
    write_json(
        args.metrics,
        {"weights": fitted.weights, "weights_without_student": fitted.without_student},
    )


if __name__ == "__main__":
    run(main)
