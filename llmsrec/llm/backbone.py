"""The frozen language model: pinned to a revision, without its LM head unless it generates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import HfApi
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.core.config import Amount, Count, Natural
from llmsrec.core.errors import ArtifactError, ConfigError
from llmsrec.core.files import read_json
from llmsrec.llm.pretrained import (
    check_no_adapter,
    folder_digest,
    load_causal_lm,
    load_encoder_model,
)

SMALL = "small"  # the value of backbone.model that trains a model here
Dtype = Literal["float32", "bfloat16", "float16"]
Reference = dict[str, Any]  # the content of backbone.json


@dataclass(frozen=True)
class BackboneConfig:
    """`model` is `small`, `smollm2`, a local folder or a hub name; `layers` of a pretrained model are kept, the first
    ones. The fields after `dtype` are the architecture and training of `small`."""

    model: str
    revision: str | None
    dtype: Dtype
    layers: Count | None
    num_layers: Count
    hidden_size: Count
    num_heads: Count
    vocabulary_size: Count
    max_positions: Count
    steps: Natural
    batch_tokens: Count
    learning_rate: Amount
    seed: int

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError("hidden_size must be a multiple of twice num_heads")
        if self.model == SMALL and self.layers is not None:
            raise ValueError(f"layers is for pretrained models: set num_layers for model: {SMALL}")


@dataclass(frozen=True)
class Backbone:
    """A model without its LM head, its tokenizer, and the `digest` of its weights.

    `causal_lm` is the model with the head, if loaded; its generation config holds the end-of-text tokens only."""

    model: Any
    tokenizer: Any
    digest: str
    causal_lm: Any = None

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def stop_tokens(self) -> set[int]:
        """The tokens that end a generated text; chat models have several."""
        eos = self.causal_lm.generation_config.eos_token_id
        tokens = eos if isinstance(eos, list) else [eos]
        return {int(token) for token in [self.tokenizer.eos_token_id, *tokens] if token is not None}

    @property
    def num_embeddings(self) -> int:
        """The number of token ids that the model has vectors for."""
        return len(self.model.get_input_embeddings().weight)

    def embed(self, tokens: Int[Tensor, "..."]) -> Float[Tensor, "... hidden"]:
        """The token vectors as the model's own forward pass computes them: Gemma's embeddings are scaled."""
        return self.model.get_input_embeddings()(tokens)


def pin(config: BackboneConfig) -> Reference:
    """A reference to a local or hub model with its exact revision; the model is not copied.

    Raises ConfigError if there is no such folder or the hub does not serve the model, ArtifactError as
    `folder_digest`."""
    folder = Path(config.model)
    if folder.is_dir():
        revision = folder_digest(folder)
        return reference_to("local", str(folder), revision, config)
    if folder.exists() or config.model.startswith((".", "/", "~")):
        raise ConfigError(f"backbone.model: {config.model} is not a folder")
    try:
        info = HfApi().model_info(config.model, revision=config.revision)
    except Exception as error:  # of the hub and of the network libraries below it
        raise ConfigError(
            f"backbone.model: the hub does not serve '{config.model}' at revision "
            f"{config.revision or 'main'} ({type(error).__name__}). Check the name, the network and, for a gated "
            "model, HF_TOKEN; a local folder works too"
        ) from None
    check_no_adapter(config.model, [file.rfilename for file in info.siblings or []])
    return reference_to("hub", config.model, str(info.sha), config)


def reference_to(kind: str, location: str, revision: str, config: BackboneConfig) -> Reference:
    """The content of backbone.json; `kind` is small, local or hub."""
    reference = {"kind": kind, "location": location, "revision": revision, "dtype": config.dtype}
    return reference if config.layers is None else {**reference, "layers": config.layers}


def digest_of(reference: Reference) -> str:
    """What identifies the weights in use: the revision and, if not all layers are kept, their number."""
    layers = reference.get("layers")
    return f"{reference['revision']}{'' if layers is None else f', {layers} layers'}"


def load_backbone(
    folder: Path, device: torch.device | str = "cpu", *, with_lm_head: bool = False
) -> Backbone:
    """The model that backbone.json in `folder` refers to, frozen and in evaluation mode; with its LM head if requested.

    Raises ArtifactError if the files differ from the pinned ones, or if the weights do not fill the model exactly: the
    digest of the files is that of what was loaded."""
    reference = read_json(folder / "backbone.json")
    kind, location = reference["kind"], reference["location"]
    path = str(folder / location) if kind == "small" else location
    if kind != "hub" and folder_digest(Path(path)) != reference["revision"]:
        raise ArtifactError(f"{path} is not the model that was pinned: rerun the backbone step")
    revision = reference["revision"] if kind == "hub" else None
    dtype = getattr(torch, reference["dtype"])
    causal_lm, tokenizer = load_causal_lm(
        path, revision, dtype, reference.get("layers"), with_lm_head=with_lm_head
    )
    causal_lm.to(device)
    model = causal_lm.base_model.get_decoder()  # of a vision-language model, what reads text
    return Backbone(model, tokenizer, digest_of(reference), causal_lm if with_lm_head else None)


def load_encoder(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Backbone:
    """Any text encoder by its folder or hub name (specification 4.3); `name@revision` pins a hub model."""
    folder = Path(name)
    path, _, revision = (name, "", "") if folder.is_dir() else name.partition("@")
    digest = folder_digest(folder) if folder.is_dir() else ""
    model, tokenizer = load_encoder_model(path, revision or None, dtype)
    return Backbone(model.to(device), tokenizer, digest or str(model.config._commit_hash))
