"""The encoder of RECFORMER (specification 4.4): a Longformer, small with random weights, or pre-trained."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from llmsrec.core.errors import ArtifactError, ConfigError


@dataclass(frozen=True)
class LongformerShape:
    """The shape of a small encoder; row 0 of its tables is padding."""

    vocabulary_size: int
    num_layers: int
    hidden_size: int
    num_heads: int
    max_tokens: int
    dropout: float


def build_longformer(shape: LongformerShape, window: int, num_types: int) -> Any:
    """A Longformer with random weights and without pooling: the first token's state is the output."""
    config = transformers.LongformerConfig(
        attention_window=window,
        vocab_size=shape.vocabulary_size,
        num_hidden_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        num_attention_heads=shape.num_heads,
        intermediate_size=4 * shape.hidden_size,
        max_position_embeddings=shape.max_tokens + 1,  # padding has its own position
        type_vocab_size=num_types,
        pad_token_id=0,
        # scaled to the width: with the 0.02 of width 768 the other tokens would hardly affect the first
        initializer_range=0.02 * math.sqrt(768 / shape.hidden_size),
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
    )
    return transformers.LongformerModel(config, add_pooling_layer=False)


def load_longformer(
    name: str, revision: str | None, window: int, num_types: int
) -> tuple[Any, Any]:
    """The model and its tokenizer from a local folder or the hub.

    The window may differ from that of its training. Each token type starts from the one type that it has."""
    if name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise ConfigError(f"recformer.encoder: {name} is no folder")
    where: dict[str, Any] = {"trust_remote_code": False, "revision": revision or "main"}
    try:
        kind = transformers.AutoConfig.from_pretrained(name, **where).model_type
        if kind != "longformer":
            raise ConfigError(f"recformer.encoder: {name} is a {kind}; expected a longformer")
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **where)
        model = transformers.LongformerModel.from_pretrained(
            name,
            **where,
            use_safetensors=True,
            dtype=torch.float32,
            attention_window=window,
            add_pooling_layer=False,
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ArtifactError(f"the encoder {name} cannot be loaded: {reason}") from None
    table = model.embeddings.token_type_embeddings.weight.data
    model.embeddings.token_type_embeddings = torch.nn.Embedding.from_pretrained(  # type: ignore[no-untyped-call]
        table[:1].repeat(num_types, 1), freeze=False
    )
    model.config.type_vocab_size = num_types
    return model, tokenizer
