"""Write the best items of every user to a Parquet file here and, if `upload` is set, to S3."""

import shutil
from dataclasses import dataclass

from llmsrec.bulk.ranker import BulkRanker
from llmsrec.bulk.recommendations import FILE, write_recommendations
from llmsrec.core.config import Count, load_section
from llmsrec.data.splits import Splits
from llmsrec.recommender.fitted import FittedRecommender
from llmsrec.sources.s3 import upload
from llmsrec.stages import paths, run
from llmsrec.student.model import load_student


@dataclass(frozen=True)
class RecommendationsConfig:
    """`k`: items for each user."""

    k: Count
    upload: str | None


def main(argv: list[str] | None = None) -> None:
    parts = "teacher", "backbone", "student", "recommender"
    args = paths(__doc__, argv, "splits", *parts, "out", "scratch")
    config = load_section(RecommendationsConfig, "recommendations")
    splits = Splits.load(args.splits)
    student = load_student(args.student, args.backbone, args.teacher, splits.catalog)
    fitted = FittedRecommender.load(args.recommender)
    ranker = BulkRanker(fitted.parts(student, splits.catalog), fitted.weights)
    write_recommendations(ranker, splits, config.k, args.out / FILE, args.scratch)
    if config.upload:
        upload([args.out / FILE], config.upload)
    shutil.rmtree(args.scratch)


if __name__ == "__main__":
    run(main)
