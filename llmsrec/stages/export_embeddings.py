"""Encode all items with the student; write the vectors here and, if `upload` is set, to S3."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from llmsrec.core.config import load_section
from llmsrec.core.files import sha256
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import load_backbone
from llmsrec.sequential.sasrec import SASRec
from llmsrec.serving.item_embeddings import encode_catalog
from llmsrec.sources.s3 import upload
from llmsrec.stages import run
from llmsrec.student.model import LLMSRec
from llmsrec.training.distributed import default_device


@dataclass(frozen=True)
class EmbeddingsConfig:
    upload: str | None


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "student", "teacher", "backbone", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(EmbeddingsConfig, "embeddings")
    splits = Splits.load(args.splits)
    backbone = load_backbone(args.backbone, default_device())
    model = LLMSRec.from_pretrained(
        args.student, backbone=backbone, teacher=SASRec.load(args.teacher), catalog=splits.catalog
    )
    digest = sha256(args.student / "model.safetensors")
    data = sha256(args.splits / "items.parquet")
    encode_catalog(model, splits, model_digest=digest, data_digest=data).save(args.out)
    if config.upload:
        upload([args.out / "items.parquet", args.out / "manifest.json"], config.upload)


if __name__ == "__main__":
    run(main)
