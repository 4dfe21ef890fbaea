"""Stage `backbone`: train the small backbone on the catalog, or pin a local or hub model."""

import argparse
from pathlib import Path

from llmsrec.backbones.small import build_small
from llmsrec.core.config import load_section
from llmsrec.core.files import atomic_directory, write_json
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import BackboneConfig, folder_digest, load_backbone, pin
from llmsrec.stages import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "out", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(BackboneConfig, "backbone")
    with atomic_directory(args.out) as aside:
        if config.model == "small":
            losses = build_small(Splits.load(args.splits).catalog, config, aside / "model")
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
