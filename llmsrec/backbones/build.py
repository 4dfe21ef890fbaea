"""Write the folder of a backbone: the small model, trained here, or a reference to a local or hub model."""

from pathlib import Path

from llmsrec.backbones.small import build_small
from llmsrec.core.files import atomic_directory, write_json
from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import BackboneConfig, folder_digest, pin

SMALL = "small"  # the value of backbone.model that trains a model here


def write_backbone(
    config: BackboneConfig, catalog: Catalog | None, folder: Path
) -> dict[str, float]:
    """Write backbone.json, and the weights of the small model, into `folder`; returns the last training losses.

    The small model is trained on the texts of `catalog`; another model does not need it.

    Raises ConfigError where the model of `config` cannot be found."""
    losses: dict[str, float] = {}
    with atomic_directory(folder) as aside:
        if config.model == SMALL:
            assert catalog is not None, "the small model is trained on the item texts"
            losses = build_small(catalog, config, aside / "model")
            reference = {
                "kind": SMALL,
                "location": "model",
                "revision": folder_digest(aside / "model"),
                "dtype": config.dtype,
            }
        else:
            reference = pin(config)
        write_json(aside / "backbone.json", reference)
    return losses
