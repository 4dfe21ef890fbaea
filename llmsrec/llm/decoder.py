"""The layers of the language model, run over embedded tokens up to a few hidden states.

Exact, and cheaper than the model's own forward pass:
- there is no LM head, and the last layer computes queries only for the requested columns;
- tokens may follow cached keys and values.
A model of another architecture than Llama's runs its own forward pass, with the same masks and positions. A
layer with a sliding window of w tokens sees those whose position is less than w before, cached or not.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from llmsrec.llm.pretrained import KeysValues, as_cache

# their layers are what `_llama_states` computes
LLAMA_LIKE = ("LlamaModel", "MistralModel", "Qwen2Model")


@dataclass(frozen=True)
class DecoderInput:
    """Right-padded rows. `mask` is true where a token sees another (cached tokens first); None is causal.

    Cached tokens stand at the positions from 0 on."""

    embedded: Float[Tensor, "rows tokens hidden"]
    positions: Int[Tensor, "rows tokens"]
    columns: Int[Tensor, "rows read_outs"]  # whose hidden states are returned
    mask: Bool[Tensor, "rows tokens cached_and_tokens"] | None = None
    past_key_values: KeysValues | None = None


class Decoder:
    """Hidden states of a causal language model without its head."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.window = _window(model.config)
        self.is_llama = type(model).__name__ in LLAMA_LIKE and self.window is None

    def hidden_states(
        self, inputs: DecoderInput, new_key_values: KeysValues | None = None
    ) -> Float[Tensor, "rows read_outs hidden"]:
        """The states after the last norm at `inputs.columns`.

        Each layer's keys and values, those of cached tokens included, are appended to `new_key_values`."""
        states = self._llama_states if self.is_llama else self._generic_states
        return states(inputs, new_key_values)

    @torch.no_grad()
    def keys_values(self, tokens: Int[Tensor, "rows tokens"]) -> KeysValues:
        """Keys and values of right-padded rows of token ids, from position 0 on."""
        cache = as_cache([])
        self.model(input_ids=tokens, past_key_values=cache, use_cache=True)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _llama_states(
        self, inputs: DecoderInput, new_key_values: KeysValues | None
    ) -> Float[Tensor, "rows read_outs hidden"]:
        x, mask = inputs.embedded, None
        if inputs.mask is not None:
            cuda = inputs.mask.device.type == "cuda"
            mask = attention_bias(inputs.mask, x.dtype) if cuda else inputs.mask[:, None]
        rotary = self.model.rotary_emb(x, inputs.positions)
        layers = self.model.layers
        for index, layer in enumerate(layers):
            attention, normed = layer.self_attn, layer.input_layernorm(x)
            key = _rotate(_heads(attention.k_proj(normed), attention), *rotary)
            value = _heads(attention.v_proj(normed), attention)
            if inputs.past_key_values is not None:
                key = torch.cat([inputs.past_key_values[index][0], key], dim=2)
                value = torch.cat([inputs.past_key_values[index][1], value], dim=2)
            if new_key_values is not None:
                new_key_values.append((key, value))
            if index == len(layers) - 1:
                x, normed, rotary, mask = _at_columns(inputs.columns, x, normed, rotary, mask)
            query = _rotate(_heads(attention.q_proj(normed), attention), *rotary)
            attended = functional.scaled_dot_product_attention(
                query,
                _repeat_heads(key, query),
                _repeat_heads(value, query),
                attn_mask=mask,
                is_causal=mask is None,
                scale=attention.scaling,
            )
            x = x + attention.o_proj(attended.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.norm(x)

    def _generic_states(
        self, inputs: DecoderInput, new_key_values: KeysValues | None
    ) -> Float[Tensor, "rows read_outs hidden"]:
        cached = inputs.past_key_values is not None or new_key_values is not None
        cache = as_cache(inputs.past_key_values or []) if cached else None
        states = self.model(
            inputs_embeds=inputs.embedded,
            position_ids=inputs.positions,
            attention_mask=None if inputs.mask is None else self._masks(inputs),
            past_key_values=cache,
            use_cache=cached,
        ).last_hidden_state
        if new_key_values is not None and cache is not None:
            new_key_values += [(layer.keys, layer.values) for layer in cache.layers]
        return states.gather(1, _expand(inputs.columns, states.shape[-1]))

    def _masks(self, inputs: DecoderInput) -> Tensor | dict[str, Tensor]:
        """The mask of all layers, or one for each kind of layer."""
        mask, positions, dtype = inputs.mask, inputs.positions, inputs.embedded.dtype
        assert mask is not None
        if self.window is None:
            return _additive(mask, dtype)
        cached = torch.arange(mask.shape[2] - positions.shape[1], device=mask.device)
        seen = torch.cat([cached.expand(len(positions), -1), positions], dim=1)
        near = positions[:, :, None] - seen[:, None] < self.window
        masks = {"full_attention": mask, "sliding_attention": mask & near}
        kinds = set(getattr(self.model.config, "layer_types", None) or ["sliding_attention"])
        if len(kinds) == 1:
            return _additive(masks[kinds.pop()], dtype)
        return {kind: _additive(masks[kind], dtype) for kind in kinds}


def attention_bias(
    mask: Bool[Tensor, "rows tokens seen"], dtype: torch.dtype
) -> Float[Tensor, "rows 1 tokens seen"]:
    """The mask as a bias of the attention scores: 0 where it is true, else minus infinity.

    CUDA's attention kernels take no other form, so one bias serves all layers. Its rows start at multiples of 16 bytes,
    else each layer would copy it."""
    rows, tokens, width = mask.shape
    padded = (rows, 1, tokens, -(-width // 8) * 8)
    bias = torch.full(padded, -torch.inf, dtype=dtype, device=mask.device)
    return bias[..., :width].masked_fill_(mask[:, None], 0.0)


def _additive(
    mask: Bool[Tensor, "rows tokens seen"], dtype: torch.dtype
) -> Float[Tensor, "rows 1 tokens seen"]:
    """The mask as the models of transformers take it: 0 where it is true, else the lowest number."""
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(~mask, torch.finfo(dtype).min)[:, None]


def _window(config: Any) -> int | None:
    """How many tokens a layer with a sliding window sees, itself included; None if all layers see all tokens."""
    if not getattr(config, "use_sliding_window", True):
        return None
    return getattr(config, "sliding_window", None) or None


def _heads(x: Float[Tensor, "rows tokens size"], attention: Any) -> Tensor:
    return x.view(*x.shape[:-1], -1, attention.head_dim).transpose(1, 2)


def _repeat_heads(keys: Tensor, queries: Tensor) -> Tensor:
    """Grouped-query attention: several query heads share one key head."""
    return keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary position embedding, with halves in the order of Hugging Face's weights."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine[:, None] + torch.cat([-second, first], dim=-1) * sine[:, None]


def _expand(columns: Int[Tensor, "rows read_outs"], size: int) -> Tensor:
    return columns[:, :, None].expand(-1, -1, size)


def _at_columns(
    columns: Int[Tensor, "rows read_outs"],
    x: Tensor,
    normed: Tensor,
    rotary: tuple[Tensor, Tensor],
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """The inputs of the last layer's queries at these columns only."""
    rows = [part.gather(1, _expand(columns, part.shape[-1])) for part in (x, normed, *rotary)]
    if mask is None:  # the causal mask, for these columns
        selected = torch.arange(x.shape[1], device=columns.device) <= columns[:, :, None]
    else:
        selected = mask[:, 0].gather(1, _expand(columns, mask.shape[-1]))
    return rows[0], rows[1], (rows[2], rows[3]), selected[:, None]
