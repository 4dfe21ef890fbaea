"""The frozen language model: found, pinned, loaded without its LM head."""

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

from llmsrec.config import Amount, Count, Natural
from llmsrec.errors import ArtifactError, ConfigError
from llmsrec.files import read_json, sha256
from llmsrec.unit import say_fresh

transformers.logging.disable_progress_bar()  # our own lines are enough

Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class BackboneConfig:
    """`model` is `small`, a local folder or a hub name; what follows `dtype` shapes and trains `small`."""

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
    """The model's body and its tokenizer; `digest` says which weights they are. `writer` is the model with its head:
    of its own ways to write (sampling, penalties) it keeps nothing but the tokens that end a text."""

    model: Any
    tokenizer: Any
    digest: str
    writer: Any = None

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def ends(self) -> set[int]:
        """Tokens after which nothing is written; chat models have several."""
        found = self.writer.generation_config.eos_token_id
        listed = found if isinstance(found, list) else [found]
        return {int(token) for token in [self.tokenizer.eos_token_id, *listed] if token is not None}

    @property
    def token_table(self) -> torch.Tensor:
        table: torch.Tensor = self.model.get_input_embeddings().weight
        return table


def as_cache(kept: list[tuple[torch.Tensor, torch.Tensor]]) -> Any:
    """Keys and values of each layer as what a model of Hugging Face takes for `past_key_values`."""
    return transformers.DynamicCache(kept)


def pin(config: BackboneConfig) -> dict[str, Any]:
    """Where a local or hub model is and exactly which one: it is referred to, never copied."""
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
        raise ConfigError(f"backbone.model: {config.model} is no folder")
    try:
        info = HfApi().model_info(config.model, revision=config.revision)
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"backbone.model: the hub does not give '{config.model}' at revision "
            f"{config.revision or 'main'} ({type(error).__name__}). Check the name, the network and, for a gated "
            "model, HF_TOKEN; a local folder works too"
        ) from None
    return {"kind": "hub", "location": config.model, "revision": info.sha, "dtype": config.dtype}


def folder_digest(folder: Path) -> str:
    """Of everything that decides the model's output."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*.safetensors"), *folder.glob("*.model")])
    if not any(file.suffix == ".safetensors" for file in files):
        raise ArtifactError(f"{folder} holds no .safetensors weights; other formats are not loaded")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def load_backbone(
    folder: Path, device: torch.device | str = "cpu", *, writes: bool = False
) -> Backbone:
    """What backbone.json in `folder` points to, frozen and in evaluation mode; with its head if it is to write."""
    reference = read_json(folder / "backbone.json")
    kind, location = reference["kind"], reference["location"]
    where = str(folder / location) if kind == "small" else location
    if kind != "hub" and folder_digest(Path(where)) != reference["revision"]:
        raise ArtifactError(f"{where} is not the model that was pinned: rerun the backbone step")
    revision = reference["revision"] if kind == "hub" else None
    dtype = getattr(torch, reference["dtype"])
    model, tokenizer = _frozen(where, revision, dtype, device, writes=writes)
    if writes:  # a penalty of repetition, which Qwen's chat models ask for, is no greedy decoding
        ends = model.generation_config.eos_token_id
        model.generation_config = transformers.GenerationConfig(eos_token_id=ends)
    body = model.base_model if writes else model
    return Backbone(body, tokenizer, reference["revision"], model if writes else None)


def load_encoder(
    name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> Backbone:
    """Any text encoder by its folder or hub name, for who does not read with the backbone (SPEC 4.3).

    `name@revision` pins one of the hub, which is another training than the bare name."""
    folder = Path(name)
    where, _, revision = (name, "", "") if folder.is_dir() else name.partition("@")
    model, tokenizer = _frozen(where, revision or None, dtype, device)
    digest = folder_digest(folder) if folder.is_dir() else str(model.config._commit_hash)
    return Backbone(model, tokenizer, digest)


def _frozen(
    where: str,
    revision: str | None,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    writes: bool = False,
) -> tuple[Any, Any]:
    """The model and its tokenizer, from safetensors alone and without anybody's code."""
    pinned = {} if revision is None else {"revision": revision}
    kinds = transformers.AutoModelForCausalLM if writes else transformers.AutoModel
    try:
        model = kinds.from_pretrained(
            where, **pinned, dtype=dtype, trust_remote_code=False, use_safetensors=True
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            where, **pinned, trust_remote_code=False
        )
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"the backbone {where} cannot be loaded: {reason}") from None
    return model.requires_grad_(False).eval().to(device), tokenizer


def small_of_champion(champion: Path | None, recipe: str) -> Path | None:
    """The champion's small model, if it was built by this recipe: a student goes on before its own backbone alone."""
    if champion is None:
        return None
    reference = read_json(champion / "backbone" / "backbone.json")
    if reference.get("recipe") != recipe:
        say_fresh("the champion's language model was built by other settings")
        return None
    return champion / "backbone" / str(reference["location"])
