"""The layers of SASRec (SPEC 4.1), and those of LiGR that eSASRec puts in their place (SPEC 9)."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Norm = Literal["original", "pre", "post"]
Layers = Literal["standard", "ligr"]
FEED_WIDTH = 4  # times the embedding, inside a gated position-wise network of LiGR: that of eSASRec's authors


@dataclass(frozen=True)
class SASRecConfig:
    num_items: int
    embedding_size: int
    num_blocks: int
    num_heads: int
    dropout: float
    norm: Norm
    max_length: int
    layers: Layers


class Block(nn.Module):
    """Attention, then a position-wise network."""

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
        newest: bool = False,
    ) -> Float[Tensor, "batch some size"]:
        """`mask` is needed where rows are padded. `newest`: nobody asks for more than the last position."""
        read = x[:, -1:] if newest else x
        if self.norm == "original":  # the residual starts from the normalised query, not from x
            query = self.attention_norm(read)
            read = self.feed_norm(query + attend(self, query, x, mask))
            return read + self._feed(read)
        if self.norm == "pre":
            normal = self.attention_norm(x)
            read = read + attend(self, normal[:, -read.shape[1] :], normal, mask)
            return read + self._feed(self.feed_norm(read))
        read = self.attention_norm(read + attend(self, read, x, mask))
        return self.feed_norm(read + self._feed(read))

    def _feed(self, x: Tensor) -> Tensor:
        inner = functional.dropout(self.inner(x), self.dropout, self.training).relu()
        return functional.dropout(self.outer(inner), self.dropout, self.training)


class LigrBlock(nn.Module):
    """Gated residuals: x += sigmoid(W1 x) * MHA(LN x), then x += sigmoid(W2 x) * SwiGLU(LN x)."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        size, wide = config.embedding_size, FEED_WIDTH * config.embedding_size
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.attention_norm = nn.LayerNorm(size, eps=1e-8)
        self.attention_gate = nn.Linear(size, size)
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.feed_norm, self.feed_gate = nn.LayerNorm(size, eps=1e-8), nn.Linear(size, size)
        self.inner_gate, self.inner = nn.Linear(size, wide), nn.Linear(size, wide)
        self.outer = nn.Linear(wide, size)

    def forward(
        self,
        x: Float[Tensor, "batch length size"],
        mask: Tensor | None = None,
        *,
        newest: bool = False,
    ) -> Float[Tensor, "batch some size"]:
        read = x[:, -1:] if newest else x
        normal = self.attention_norm(x)
        mixed = attend(self, normal[:, -read.shape[1] :], normal, mask)
        read = read + self.attention_gate(read).sigmoid() * mixed
        return read + self.feed_gate(read).sigmoid() * self._feed(self.feed_norm(read))

    def _feed(self, x: Tensor) -> Tensor:
        inner = functional.silu(self.inner_gate(x)) * self.inner(x)
        inner = functional.dropout(inner, self.dropout, self.training)
        return functional.dropout(self.outer(inner), self.dropout, self.training)


@runtime_checkable  # tests check types at every call
class Attending(Protocol):
    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    num_heads: int
    dropout: float
    training: bool


def attend(layer: Attending, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
    """What each query takes from the source, by the layer's weights; without a mask, from what stands before it."""
    q, k, v = (
        part.unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
        for part in (layer.query(query), layer.key(source), layer.value(source))
    )
    drop = layer.dropout if layer.training else 0.0
    causal = mask is None and query.shape[1] > 1  # the newest position alone sees all
    mixed = functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=drop, is_causal=causal
    )
    return layer.out(mixed.transpose(1, 2).flatten(-2))


KINDS: dict[Layers, type[Block] | type[LigrBlock]] = {"standard": Block, "ligr": LigrBlock}
