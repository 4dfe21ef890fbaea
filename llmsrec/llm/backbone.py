"""The frozen language model: pinned to a revision, loaded from safetensors, without its LM head unless it generates."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
import transformers
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from llmsrec.core.config import Amount, Count, Natural
from llmsrec.core.errors import ArtifactError, ConfigError
from llmsrec.core.files import read_json, sha256

transformers.logging.disable_progress_bar()  # core/progress.py reports progress

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class BackboneConfig:
    """`model` is `small`, a local folder or a hub name. The fields after `dtype` are the architecture and training of
    `small`."""

    model: str
    revision: str | None
    dtype: Dtype
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
    def token_table(self) -> torch.Tensor:
        """The input embeddings: tokens x hidden."""
        table: torch.Tensor = self.model.get_input_embeddings().weight
        return table


def as_cache(keys_values: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """The keys and values of each layer as `past_key_values` of a Hugging Face model."""
    return transformers.DynamicCache(keys_values)


def pin(config: BackboneConfig) -> dict[str, Any]:
    """A reference to a local or hub model with its exact revision; the model is not copied.

    Raises ConfigError if there is no such folder or the hub does not serve the model."""
    folder = Path(config.model)
    if folder.is_dir():
        location = str(folder)
        return {
            "kind": "local",
            "location": location,
            "revision": folder_digest(folder),
            "dtype": config.dtype,
        }
    if config.model.startswith((".", "/", "~")):
        raise ConfigError(f"backbone.model: {config.model} is not a folder")
    try:
        info = HfApi().model_info(config.model, revision=config.revision)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"backbone.model: the hub does not serve '{config.model}' at revision "
            f"{config.revision or 'main'} ({type(error).__name__}). Check the name, the network and, for a gated "
            "model, HF_TOKEN; a local folder works too"
        ) from None
    return {"kind": "hub", "location": config.model, "revision": info.sha, "dtype": config.dtype}


def folder_digest(folder: Path) -> str:
    """SHA-256 of all configs, tokenizers and weights; raises ArtifactError if there are no .safetensors weights."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.model")])
    if not any(file.suffix == ".safetensors" for file in files):
        raise ArtifactError(f"{folder} holds no .safetensors weights; other formats are refused")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def load_backbone(
    folder: Path, device: torch.device | str = "cpu", *, with_lm_head: bool = False
) -> Backbone:
    """The model that backbone.json in `folder` refers to, frozen and in evaluation mode; with its LM head if requested.

    Raises ArtifactError if the weights differ from the pinned ones."""
    reference = read_json(folder / "backbone.json")
    kind, location = reference["kind"], reference["location"]
    path = str(folder / location) if kind == "small" else location
    if kind != "hub" and folder_digest(Path(path)) != reference["revision"]:
        raise ArtifactError(f"{path} is not the model that was pinned: rerun the backbone step")
    revision = reference["revision"] if kind == "hub" else None
    dtype = getattr(torch, reference["dtype"])
    model, tokenizer = _load_frozen(path, revision, dtype, device, with_lm_head=with_lm_head)
    if not with_lm_head:
        return Backbone(model, tokenizer, reference["revision"])
    # greedy decoding: the configs of Qwen's chat models set a repetition penalty
    eos = model.generation_config.eos_token_id
    model.generation_config = transformers.GenerationConfig(eos_token_id=eos)
    return Backbone(model.base_model, tokenizer, reference["revision"], model)


def load_encoder(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Backbone:
    """Any text encoder by its folder or hub name (specification 4.3); `name@revision` pins a hub model."""
    folder = Path(name)
    path, _, revision = (name, "", "") if folder.is_dir() else name.partition("@")
    model, tokenizer = _load_frozen(path, revision or None, dtype, device)
    digest = folder_digest(folder) if folder.is_dir() else str(model.config._commit_hash)
    return Backbone(model, tokenizer, digest)


def _load_frozen(
    path: str,
    revision: str | None,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    with_lm_head: bool = False,
) -> tuple[Any, Any]:
    """The model and its tokenizer, from safetensors only and without remote code."""
    pinned = {} if revision is None else {"revision": revision}
    auto_class = transformers.AutoModelForCausalLM if with_lm_head else transformers.AutoModel
    try:
        model = auto_class.from_pretrained(
            path, **pinned, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, **pinned, trust_remote_code=False
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"the backbone {path} cannot be loaded: {reason}") from None
    return model.requires_grad_(False).eval().to(device), tokenizer
