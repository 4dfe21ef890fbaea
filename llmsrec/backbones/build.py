"""Write the folder of a backbone: the small model, trained here, or a reference to a local or hub model."""

from dataclasses import dataclass
from pathlib import Path

from llmsrec.backbones.small import build_small
from llmsrec.backbones.smollm2 import SMOLLM2, pin_smollm2
from llmsrec.backbones.trial import check_backbone, weights_digest
from llmsrec.core.config import PARAMS, Count, from_mapping, read_section
from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import atomic_directory, write_json
from llmsrec.data.catalog import Catalog
from llmsrec.llm.backbone import SMALL, BackboneConfig, load_backbone, pin, reference_to
from llmsrec.llm.pretrained import folder_digest


@dataclass(frozen=True)
class _Prompt:
    max_prompt_tokens: Count


def read_max_prompt_tokens(params: Path = PARAMS) -> int:
    """`student.max_prompt_tokens`: the longest prompt that the backbone must read."""
    value = read_section("student", params).get("max_prompt_tokens")
    where = f"{params}: student"
    return from_mapping(_Prompt, {"max_prompt_tokens": value}, where).max_prompt_tokens


def write_backbone(
    config: BackboneConfig, catalog: Catalog | None, folder: Path, max_prompt_tokens: int
) -> dict[str, float | int]:
    """Write backbone.json, and the weights of the small model, into `folder`, which appears once the model is checked.

    The small model is trained on the texts of `catalog`; another model does not need it. Returns the last training
    losses and the number of parameters. Raises ConfigError or ArtifactError where the model cannot be found or loaded,
    is incomplete, or cannot read prompts of `max_prompt_tokens`."""
    losses: dict[str, float] = {}
    with atomic_directory(folder) as aside:
        if config.model == SMALL:
            assert catalog is not None, "the small model is trained on the item texts"
            losses = build_small(catalog, config, aside / "model")
            reference = reference_to(SMALL, "model", folder_digest(aside / "model"), config)
        else:
            reference = pin_smollm2(config) if config.model == SMOLLM2 else pin(config)
        write_json(aside / "backbone.json", reference)
        first = weights_digest(load_backbone(aside).model)
        backbone = load_backbone(aside)
        if weights_digest(backbone.model) != first:
            raise ArtifactError(f"{config.model} has other weights each time that it is loaded")
        check_backbone(backbone, max_prompt_tokens)
    parameters = sum(parameter.numel() for parameter in backbone.model.parameters())
    return {**losses, "parameters": parameters}
