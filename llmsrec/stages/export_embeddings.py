"""Write the item vectors of the recommender here and, if `upload` is set, to S3."""

from dataclasses import dataclass

from llmsrec.core.config import load_section
from llmsrec.core.files import sha256
from llmsrec.data.catalog import Catalog
from llmsrec.recommender.fitted import FittedRecommender
from llmsrec.sequential.sasrec import SASRec
from llmsrec.serving.item_embeddings import export_items
from llmsrec.sources.s3 import upload
from llmsrec.stages import paths, run


@dataclass(frozen=True)
class EmbeddingsConfig:
    upload: str | None


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "splits", "teacher", "recommender", "out")
    config = load_section(EmbeddingsConfig, "embeddings")
    catalog = Catalog.load(args.splits / "items.parquet")
    fitted = FittedRecommender.load(args.recommender)
    digests = {
        "model": sha256(args.recommender / "config.json"),
        "data": sha256(args.splits / "items.parquet"),
    }
    export_items(fitted, SASRec.load(args.teacher), catalog, args.out, digests)
    if config.upload:
        upload([args.out / "items.parquet", args.out / "manifest.json"], config.upload)


if __name__ == "__main__":
    run(main)
