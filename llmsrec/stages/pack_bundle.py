"""A trained folder -> an MLflow model, ready to be registered."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmsrec.core.config import OPERATIONS, Amount, load_section
from llmsrec.core.files import atomic_directory
from llmsrec.data.catalog import Catalog
from llmsrec.data.splits import Splits
from llmsrec.serving import mlflow_model
from llmsrec.serving.bundle import CATALOG, pack_bundle
from llmsrec.serving.leakage import TRAINING_INTERACTIONS, training_interactions
from llmsrec.stages import paths, run


@dataclass(frozen=True)
class ServingConfig:
    user_cache_mb: Amount


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "artifacts", "out")
    config = load_section(ServingConfig, "serving", OPERATIONS)
    with tempfile.TemporaryDirectory() as scratch, atomic_directory(args.out) as aside:
        bundle = Path(scratch) / "bundle"
        pack_bundle(args.artifacts, bundle)
        np.save(
            bundle / TRAINING_INTERACTIONS,
            training_interactions(Splits.load(args.artifacts / "splits")),
        )
        aside.rmdir()  # MLflow makes it
        example = Catalog.load(bundle / CATALOG).items["item_id"].head(2).tolist()
        mlflow_model.save(bundle, aside, example, config.user_cache_mb)


if __name__ == "__main__":
    run(main)
