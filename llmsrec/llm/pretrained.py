"""Load pretrained models: from safetensors, without remote code, and complete or not at all."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
import transformers

from llmsrec.core.errors import ArtifactError
from llmsrec.core.files import sha256

transformers.logging.disable_progress_bar()  # core/progress.py reports progress
transformers.logging.set_verbosity_error()  # what it warns of is refused here, by name

KeysValues = list[tuple[Tensor, Tensor]]  # per layer: rows x heads x tokens x size, keys rotated

ADAPTER = "adapter_config.json"
# suffixes of the files that are loaded, and of weights in other formats
READ = {".json", ".safetensors", ".model", ".txt", ".tiktoken"}
OTHER_WEIGHTS = {
    ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".h5", ".msgpack", ".npz", ".onnx",
}  # fmt: skip
# masks that old exports of GPT-2, GPT-J and CodeGen hold as if they were weights
OLD_BUFFERS = re.compile(r"\.(attn|attention)\.(bias|masked_bias|causal_mask)$")
GIT_LFS = b"version https://git-lfs"
# settings with which logits are more than the output head times the states; generation reads no more than that
AFTER_HEAD = ("final_logit_softcapping", "logit_scale", "logits_scaling", "dim_model_base")
SHOWN = 3  # names of weights in a message
EXPORT = "save the whole model with save_pretrained"


def load_causal_lm(
    path: str, revision: str | None, dtype: torch.dtype, layers: int | None, *, with_lm_head: bool
) -> tuple[Any, Any]:
    """A frozen model in evaluation mode, head included, and its tokenizer; `revision` is that of a hub model.

    With `layers`, it has its first layers only, and the final norm. Its generation config holds the end-of-text tokens
    only. Raises ArtifactError if anything cannot be read, or if weights are missing, surplus or of another shape; those
    of the head may be missing without `with_lm_head`. With it, also if the model changes what the head computes."""
    model, report = _load(transformers.AutoModelForCausalLM, path, revision, dtype, layers)
    base = f"{model.base_model_prefix}."
    missing = {name for name in report["missing_keys"] if with_lm_head or name.startswith(base)}
    unexpected = {name for name in report["unexpected_keys"] if not _is_unused(name, layers)}
    check_complete(path, missing, unexpected, report["mismatched_keys"])
    if with_lm_head and (settings := settings_after_head(model)):
        raise ArtifactError(
            f"{path} scales the logits of its head ({', '.join(settings)}), which title generation does not: use "
            "another model for generation"
        )
    # greedy decoding: the configs of Qwen's chat models set a repetition penalty
    eos = None if model.generation_config is None else model.generation_config.eos_token_id
    model.generation_config = transformers.GenerationConfig(eos_token_id=eos)
    return model, _load_tokenizer(path, revision)


def load_encoder_model(path: str, revision: str | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """As `load_causal_lm`, without a head. The file may hold heads, and may lack the pooler, which is not used."""
    model, report = _load(transformers.AutoModel, path, revision, dtype)
    missing = {name for name in report["missing_keys"] if not name.startswith("pooler.")}
    check_complete(path, missing, set(), report["mismatched_keys"])
    return model, _load_tokenizer(path, revision)


def settings_after_head(model: Any) -> list[str]:
    """The settings by which a causal language model changes the logits of its output head."""
    config = model.config.get_text_config()
    return [name for name in AFTER_HEAD if getattr(config, name, None) not in (None, 1)]


def as_cache(keys_values: KeysValues) -> Any:
    """`past_key_values` of a Hugging Face model. Every layer keeps all tokens, whatever its sliding window."""
    return transformers.DynamicCache(keys_values)


def folder_digest(folder: Path) -> str:
    """SHA-256 of all files that are loaded: configs, tokenizer and weights.

    Raises ArtifactError if the folder is missing, holds an adapter or no .safetensors weights, or if a file is not
    whole."""
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is missing: the language model was read from there")
    files = sorted(file for file in folder.iterdir() if file.is_file())
    check_no_adapter(str(folder), [file.name for file in files])
    if not any(file.suffix == ".safetensors" for file in files):
        others = [file.name for file in files if file.suffix in OTHER_WEIGHTS]
        beside = f" but {', '.join(others)}" if others else ""
        raise ArtifactError(
            f"{folder} holds no .safetensors weights{beside}; other formats are refused: load the model where you "
            f"trust it and {EXPORT}"
        )
    digest = hashlib.sha256()
    for file in files:
        if file.suffix in READ:
            try:
                _check_whole(file)
                digest.update(f"{file.name} {sha256(file)}\n".encode())
            except OSError as error:
                raise ArtifactError(f"{file} cannot be read ({reason_of(error)})") from None
    return digest.hexdigest()


def check_no_adapter(location: str, names: list[str]) -> None:
    """ArtifactError if these files of a model are an adapter, with or without the model that it changes."""
    if ADAPTER in names:
        raise ArtifactError(
            f"{location} holds an adapter ({ADAPTER}): merge it into its model (PEFT's merge_and_unload) and {EXPORT}"
        )


def _check_whole(file: Path) -> None:
    with file.open("rb") as opened:
        if opened.read(len(GIT_LFS)) == GIT_LFS:
            raise ArtifactError(f"{file} is a pointer of Git LFS: run `git lfs pull` in its folder")
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise ArtifactError(
                f"{file} is cut short or damaged ({error}): fetch it again"
            ) from None


def _load(
    auto_class: Any, path: str, revision: str | None, dtype: torch.dtype, layers: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """The model and the loading report of transformers."""
    config = _read_config(path, revision)
    changed = {} if layers is None else {"config": _first_layers(path, revision, layers)}
    try:
        model, report = auto_class.from_pretrained(
            path,
            **_pinned(revision),
            **changed,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # the report names them
            output_loading_info=True,
        )
    except Exception as error:  # every format of weights fails in its own way
        named, hint = f"{path} (model_type '{config['model_type']}')", "fetch it again"
        if "for this kind of AutoModel" in str(error):
            raise ArtifactError(
                f"{named} is no causal language model: use another (docs/backbones.md)"
            ) from None
        if isinstance(quantization := config.get("quantization_config"), dict):
            method = quantization.get("quant_method", "method unknown")
            hint = f"its weights are quantised ({method}), use those that are not"
        raise ArtifactError(f"{named} cannot be loaded ({reason_of(error)}): {hint}") from None
    return model.requires_grad_(False).eval(), report


def _first_layers(path: str, revision: str | None, layers: int) -> Any:
    """The config of the model without its later layers."""
    config = transformers.AutoConfig.from_pretrained(
        path, **_pinned(revision), trust_remote_code=False
    )
    text = config.get_text_config()
    total = text.num_hidden_layers
    if layers > total:
        raise ArtifactError(f"{path} has {total} layers: set backbone.layers to at most {total}")
    text.num_hidden_layers = layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == total:  # layer_types
            setattr(text, name, value[:layers])
    return config


def _is_unused(name: str, layers: int | None) -> bool:
    """Whether a weight is a mask of an old export or belongs to a layer that is left out."""
    number = re.search(r"\.(\d+)\.", name)
    left_out = layers is not None and number is not None and int(number[1]) >= layers
    return left_out or OLD_BUFFERS.search(name) is not None


def _read_config(path: str, revision: str | None) -> dict[str, Any]:
    """config.json; ArtifactError if it is missing or damaged, or names no architecture that transformers has."""
    try:
        config, _ = transformers.PreTrainedConfig.get_config_dict(path, **_pinned(revision))
    except Exception as error:  # also that of its parsers
        raise ArtifactError(
            f"{path} cannot be loaded: its config.json cannot be read ({reason_of(error)})"
        ) from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str):
        raise ArtifactError(
            f"{path} has no config.json with a model_type, the name of an architecture such as 'llama': fetch the "
            f"model's own, or {EXPORT}"
        )
    if kind in transformers.CONFIG_MAPPING:
        return config
    why = f"transformers {transformers.__version__} does not have"
    if "auto_map" in config:
        why = "comes with its own code, which is never run"
    raise ArtifactError(
        f"{path}/config.json names the model_type '{kind}', which {why}: use another model (docs/backbones.md)"
    )


def _load_tokenizer(path: str, revision: str | None) -> Any:
    try:
        # a title with the text of a special token, such as `</s>`, does not end the prompt
        return transformers.AutoTokenizer.from_pretrained(
            path, **_pinned(revision), trust_remote_code=False, split_special_tokens=True
        )
    except Exception as error:  # every format of tokenizers fails in its own way
        raise ArtifactError(
            f"the tokenizer of {path} cannot be loaded ({reason_of(error)}): fetch the model's tokenizer.json and "
            "tokenizer_config.json"
        ) from None


def _pinned(revision: str | None) -> dict[str, str]:
    return {} if revision is None else {"revision": revision}


def check_complete(
    path: str, missing: set[str], unexpected: set[str], mismatched: set[Any]
) -> None:
    """Missing weights would be random at every load; surplus ones belong to another model."""
    shapes = {
        f"{name} ({list(found)}, expected {list(wanted)})" for name, found, wanted in mismatched
    }
    faults = {"lack": missing, "have the wrong shape:": shapes, "also hold": unexpected}
    found = [f"{fault} {_first(names)}" for fault, names in faults.items() if names]
    if found:
        raise ArtifactError(
            f"the weights of {path} do not fit its config.json: they {'; they '.join(found)}: {EXPORT}"
        )


def _first(names: set[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def reason_of(error: Exception) -> str:
    """The type and the first line of a library's error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'no message'}"
