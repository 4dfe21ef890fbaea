"""Catalogue -> backbone: built small, or pinned."""

import argparse
from pathlib import Path

from llmsrec.config import load_section
from llmsrec.data.splits import Splits
from llmsrec.files import whole_folder, write_json
from llmsrec.stages import run
from llmsrec.student.backbone import BackboneConfig, folder_digest, load_backbone, pin
from llmsrec.student.small import build_small


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "out", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(BackboneConfig, "backbone")
    with whole_folder(args.out) as aside:
        if config.model == "small":
            catalog = Splits.load(args.splits).catalog
            losses = build_small(catalog, config, aside / "model")
            digest = folder_digest(aside / "model")
            reference = {
                "kind": "small",
                "location": "model",
                "revision": digest,
                "dtype": config.dtype,
            }
        else:
            losses, reference = {}, pin(config)
        write_json(aside / "backbone.json", reference)
    parameters = sum(parameter.numel() for parameter in load_backbone(args.out).model.parameters())
    write_json(args.metrics, {**losses, "parameters": parameters})


if __name__ == "__main__":
    run(main)
