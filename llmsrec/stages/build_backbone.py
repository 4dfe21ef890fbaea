"""Stage `backbone`: train the small backbone on the catalog, or pin a local or hub model; check that it can be used."""

import argparse
from pathlib import Path

from llmsrec.backbones.build import SMALL, read_max_prompt_tokens, write_backbone
from llmsrec.core.config import load_section
from llmsrec.core.files import write_json
from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import BackboneConfig
from llmsrec.stages import run


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("splits", "out", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args(argv)
    config = load_section(BackboneConfig, "backbone")
    catalog = Catalog.load(args.splits / "items.parquet") if config.model == SMALL else None
    metrics = write_backbone(config, catalog, args.out, read_max_prompt_tokens())
    write_json(args.metrics, metrics)


if __name__ == "__main__":
    run(main)
