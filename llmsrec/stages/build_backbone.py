"""Catalogue -> backbone: built small, or pinned."""

import argparse
import shutil
from pathlib import Path

from llmsrec.config import load_section
from llmsrec.data.splits import Splits
from llmsrec.files import whole_folder, write_json
from llmsrec.stages import run
from llmsrec.student.backbone import (
    BackboneConfig,
    folder_digest,
    load_backbone,
    pin,
    small_of_champion,
)
from llmsrec.student.small import build_small
from llmsrec.training import fingerprint
from llmsrec.unit import RetrainingConfig


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "champion", "out", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(BackboneConfig, "backbone")
    with whole_folder(args.out) as aside:
        if config.model == "small":
            recipe = fingerprint(config)
            champion = load_section(RetrainingConfig, "retraining").start(args.champion)
            start = small_of_champion(champion, recipe)
            if start is not None:
                shutil.copytree(start, aside / "model")
                losses = {}
            else:
                losses = build_small(Splits.load(args.splits).catalog, config, aside / "model")
            digest = folder_digest(aside / "model")
            reference = {
                "kind": "small",
                "location": "model",
                "revision": digest,
                "dtype": config.dtype,
                "recipe": recipe,
            }
        else:
            losses, reference = {}, pin(config)
        write_json(aside / "backbone.json", reference)
    parameters = sum(parameter.numel() for parameter in load_backbone(args.out).model.parameters())
    write_json(args.metrics, {**losses, "parameters": parameters})


if __name__ == "__main__":
    run(main)
