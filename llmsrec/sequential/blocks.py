"""The transformer blocks of SASRec (specification 4.1) and the LiGR blocks of eSASRec (specification 9)."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["original", "pre", "post"]
Layers = Literal["standard", "ligr"]


@dataclass(frozen=True)
class SASRecConfig:
    """The shape of a SASRec; saved with its weights."""

    num_items: int
    embedding_size: int
    num_blocks: int
    num_heads: int
    dropout: float
    norm: Norm
    max_length: int
    layers: Layers
    ligr_multiplier: int  # inner size of a LiGR feed-forward network over `embedding_size`


class Block(nn.Module):
    """Self-attention, then a position-wise feed-forward network."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.norm, self.num_heads, self.dropout = config.norm, config.num_heads, config.dropout
        self.attention_norm = nn.LayerNorm(size, eps=1e-8)
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.feed_norm = nn.LayerNorm(size, eps=1e-8)
        self.inner, self.outer = nn.Linear(size, size), nn.Linear(size, size)

    def forward(
        self,
        x: Float[Tensor, "batch length size"],
        mask: Tensor | None = None,
        *,
        last_only: bool = False,
    ) -> Float[Tensor, "batch positions size"]:
        """`mask` is required if rows are padded. `last_only` computes the last position alone."""
        out = x[:, -1:] if last_only else x
        if self.norm == "original":  # the residual starts from the normalised query, not from x
            query = self.attention_norm(out)
            out = self.feed_norm(query + attend(self, query, x, mask))
            return out + self._feed(out)
        if self.norm == "pre":
            normed = self.attention_norm(x)
            out = out + attend(self, normed[:, -out.shape[1] :], normed, mask)
            return out + self._feed(self.feed_norm(out))
        out = self.attention_norm(out + attend(self, out, x, mask))
        return self.feed_norm(out + self._feed(out))

    def _feed(self, x: Tensor) -> Tensor:
        inner = functional.dropout(self.inner(x), self.dropout, self.training).relu()
        return functional.dropout(self.outer(inner), self.dropout, self.training)


class LigrBlock(nn.Module):
    """Gated residuals: x += sigmoid(W1 x) * MHA(LN x), then x += sigmoid(W2 x) * SwiGLU(LN x)."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        size = config.embedding_size
        inner_size = config.ligr_multiplier * size
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.attention_norm = nn.LayerNorm(size, eps=1e-8)
        self.attention_gate = nn.Linear(size, size)
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.feed_norm, self.feed_gate = nn.LayerNorm(size, eps=1e-8), nn.Linear(size, size)
        self.inner_gate, self.inner = nn.Linear(size, inner_size), nn.Linear(size, inner_size)
        self.outer = nn.Linear(inner_size, size)

    def forward(
        self,
        x: Float[Tensor, "batch length size"],
        mask: Tensor | None = None,
        *,
        last_only: bool = False,
    ) -> Float[Tensor, "batch positions size"]:
        out = x[:, -1:] if last_only else x
        normed = self.attention_norm(x)
        attended = attend(self, normed[:, -out.shape[1] :], normed, mask)
        out = out + self.attention_gate(out).sigmoid() * attended
        return out + self.feed_gate(out).sigmoid() * self._feed(self.feed_norm(out))

    def _feed(self, x: Tensor) -> Tensor:
        inner = functional.silu(self.inner_gate(x)) * self.inner(x)
        inner = functional.dropout(inner, self.dropout, self.training)
        return functional.dropout(self.outer(inner), self.dropout, self.training)


@runtime_checkable  # tests check types at every call
class AttentionLayer(Protocol):
    """The parameters of multi-head attention."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    num_heads: int
    dropout: float
    training: bool


def attend(layer: AttentionLayer, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
    """Multi-head attention of `query` over `source`; causal without a mask."""
    q, k, v = (
        part.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for part in (layer.query(query), layer.key(source), layer.value(source))
    )
    dropout = layer.dropout if layer.training else 0.0
    causal = (
        mask is None and query.shape[1] > 1
    )  # a single query is the last position, which sees all
    attended = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal
    )
    return layer.out(attended.transpose(1, 2).flatten(-2))


BLOCKS: dict[Layers, type[Block] | type[LigrBlock]] = {"standard": Block, "ligr": LigrBlock}
