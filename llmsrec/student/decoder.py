"""The frozen layers of the language model, run over embedded tokens up to the few rows that are read.

Exact, and cheaper than the model's own forward pass:
- no LM head, and only the rows to be read leave the last layer: the others give it keys and values, nothing more;
- tokens may follow kept keys and values, so that what never changes is not computed again.
A model of another shape than Llama's runs through its own forward pass, with the same masks and positions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from llmsrec.student.backbone import as_cache

KeysValues = list[tuple[Tensor, Tensor]]  # of each layer: rows x heads x tokens x size, rotated


@dataclass(frozen=True)
class Rows:
    """Right-padded rows. `mask` says what each token sees (kept tokens first); None is plain causal."""

    embedded: Float[Tensor, "rows tokens hidden"]
    positions: Int[Tensor, "rows tokens"]
    reads: Int[Tensor, "rows reads"]  # columns whose state is wanted
    mask: Bool[Tensor, "rows tokens seen"] | None = None
    kept: KeysValues | None = None


class Decoder:
    """Reads states of a frozen causal language model without its head."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.llama_shaped = _is_llama_shaped(model)

    def read(
        self, rows: Rows, keep: KeysValues | None = None
    ) -> Float[Tensor, "rows reads hidden"]:
        """The final states (after the last norm) at `rows.reads`; `keep` gets each layer's keys and values."""
        return self._read_llama(rows, keep) if self.llama_shaped else self._read_any(rows, keep)

    @torch.no_grad()
    def keys_values(self, tokens: Int[Tensor, "rows tokens"]) -> KeysValues:
        """Keys and values of right-padded rows of plain tokens, from position 0 on."""
        kept = self.model(input_ids=tokens, use_cache=True).past_key_values
        return [(layer.keys, layer.values) for layer in kept.layers]

    def _read_llama(
        self, rows: Rows, keep: KeysValues | None
    ) -> Float[Tensor, "rows reads hidden"]:
        x, mask = rows.embedded, None
        if rows.mask is not None:
            on_cuda = rows.mask.device.type == "cuda"
            mask = as_bias(rows.mask, x.dtype) if on_cuda else rows.mask[:, None]
        turn = self.model.rotary_emb(x, rows.positions)
        layers = self.model.layers
        for number, layer in enumerate(layers):
            attention, normal = layer.self_attn, layer.input_layernorm(x)
            key = _rotated(_heads(attention.k_proj(normal), attention), *turn)
            value = _heads(attention.v_proj(normal), attention)
            if rows.kept is not None:
                key = torch.cat([rows.kept[number][0], key], dim=2)
                value = torch.cat([rows.kept[number][1], value], dim=2)
            if keep is not None:
                keep.append((key, value))
            if number == len(layers) - 1:
                x, normal, turn, mask = _only_reads(rows.reads, x, normal, turn, mask)
            query = _rotated(_heads(attention.q_proj(normal), attention), *turn)
            mixed = functional.scaled_dot_product_attention(
                query,
                _shared(key, query),
                _shared(value, query),
                attn_mask=mask,
                is_causal=mask is None,
                scale=attention.scaling,
            )
            x = x + attention.o_proj(mixed.transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.model.norm(x)

    def _read_any(self, rows: Rows, keep: KeysValues | None) -> Float[Tensor, "rows reads hidden"]:
        mask = None
        if rows.mask is not None:
            least = torch.finfo(rows.embedded.dtype).min
            mask = torch.zeros(rows.mask.shape, dtype=rows.embedded.dtype, device=rows.mask.device)
            mask = mask.masked_fill(~rows.mask, least)[:, None]
        found = self.model(
            inputs_embeds=rows.embedded,
            position_ids=rows.positions,
            attention_mask=mask,
            past_key_values=None if rows.kept is None else as_cache(rows.kept),
            use_cache=rows.kept is not None or keep is not None,
        )
        if keep is not None:
            keep += [(layer.keys, layer.values) for layer in found.past_key_values.layers]
        states = found.last_hidden_state
        return states.gather(1, _columns(rows.reads, states.shape[-1]))


def as_bias(
    mask: Bool[Tensor, "rows tokens seen"], dtype: torch.dtype
) -> Float[Tensor, "rows 1 tokens seen"]:
    """A mask as CUDA's attention kernels take it, made once for all layers instead of once in each: what is added to
    the scores. Its rows begin at multiples of 16 bytes, or each layer would copy it."""
    rows, tokens, width = mask.shape
    bias = torch.full(
        (rows, 1, tokens, -(-width // 8) * 8), -torch.inf, dtype=dtype, device=mask.device
    )
    return bias[..., :width].masked_fill_(mask[:, None], 0.0)


def _is_llama_shaped(model: Any) -> bool:
    """The family whose layers are what `_read_llama` computes, with attention over everything."""
    slides = getattr(model.config, "sliding_window", None) and getattr(
        model.config, "use_sliding_window", True
    )
    return type(model).__name__ in ("LlamaModel", "MistralModel", "Qwen2Model") and not slides


def _heads(x: Float[Tensor, "rows tokens size"], attention: Any) -> Tensor:
    return x.view(*x.shape[:-1], -1, attention.head_dim).transpose(1, 2)


def _shared(keys: Tensor, queries: Tensor) -> Tensor:
    """Grouped-query attention: several query heads look at one key head."""
    return keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)


def _rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions, in the order of halves that Hugging Face stores weights for."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine[:, None] + torch.cat([-second, first], dim=-1) * sine[:, None]


def _columns(reads: Int[Tensor, "rows reads"], size: int) -> Tensor:
    return reads[:, :, None].expand(-1, -1, size)


def _only_reads(
    reads: Int[Tensor, "rows reads"],
    x: Tensor,
    normal: Tensor,
    turn: tuple[Tensor, Tensor],
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor], Tensor]:
    """What the last layer needs of its queries: the rows that are read."""
    rows = [part.gather(1, _columns(reads, part.shape[-1])) for part in (x, normal, *turn)]
    if mask is None:  # what was causal for all rows must be said for a few of them
        seen = torch.arange(x.shape[1], device=reads.device) <= reads[:, :, None]
    else:
        seen = mask[:, 0].gather(1, _columns(reads, mask.shape[-1]))
    return rows[0], rows[1], (rows[2], rows[3]), seen[:, None]
