"""Stage `backbone`: train the small backbone on the catalog, or pin a local or hub model; check that it can be used."""

from llmsrec.backbones.build import read_max_prompt_tokens, write_backbone
from llmsrec.core.config import load_section
from llmsrec.core.files import read_json, write_json
from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import SMALL, BackboneConfig
from llmsrec.stages import paths, run

PROVENANCE = ("kind", "revision", "layers", "source", "licence", "quantised")


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "splits", "out", "metrics")
    config = load_section(BackboneConfig, "backbone")
    catalog = Catalog.load(args.splits / "items.parquet") if config.model == SMALL else None
    metrics = write_backbone(config, catalog, args.out, read_max_prompt_tokens())
    reference = read_json(args.out / "backbone.json")
    model = {key: reference[key] for key in PROVENANCE if key in reference}
    write_json(args.metrics, {**metrics, "model": model})


if __name__ == "__main__":
    run(main)
