"""Stage `backbone`: train the small backbone on the catalog, or pin a local or hub model; check that it can be used."""

from llmsrec.backbones.build import SMALL, read_max_prompt_tokens, write_backbone
from llmsrec.core.config import load_section
from llmsrec.core.files import write_json
from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import BackboneConfig
from llmsrec.stages import paths, run


def main(argv: list[str] | None = None) -> None:
    args = paths(__doc__, argv, "splits", "out", "metrics")
    config = load_section(BackboneConfig, "backbone")
    catalog = Catalog.load(args.splits / "items.parquet") if config.model == SMALL else None
    metrics = write_backbone(config, catalog, args.out, read_max_prompt_tokens())
    write_json(args.metrics, metrics)


if __name__ == "__main__":
    run(main)
