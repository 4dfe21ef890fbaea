"""Write the folder of a backbone: the small model, trained here, or a reference to a local or hub model."""

from pathlib import Path

from llmsrec.backbones.small import build_small
from llmsrec.core.files import atomic_directory, write_json
from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import BackboneConfig, folder_digest, pin


def write_backbone(config: BackboneConfig, catalog: Catalog, folder: Path) -> dict[str, float]:
    """Write backbone.json, and the weights of the small model, into `folder`; returns the last training losses.

    Raises ConfigError where the model of `config` cannot be found."""
    losses: dict[str, float] = {}
    with atomic_directory(folder) as aside:
        if config.model == "small":
            losses = build_small(catalog, config, aside / "model")
            reference = {
                "kind": "small",
                "location": "model",
                "revision": folder_digest(aside / "model"),
                "dtype": config.dtype,
            }
        else:
            reference = pin(config)
        write_json(aside / "backbone.json", reference)
    return losses
