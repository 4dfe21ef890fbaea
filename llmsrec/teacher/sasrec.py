"""SASRec (SPEC 4.1): the network and nothing else.

Rows are left padded, so the newest purchase stands at the last column. Positions are counted from the left of the
full width, whatever the width of a batch: trimming a batch to its longest row changes nothing.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.config import from_mapping
from llmsrec.data.sequences import Sequences
from llmsrec.files import read_json, whole_folder

Norm = Literal["original", "pre", "post"]
BATCH_TOKENS = 1 << 15  # padded positions represented at a time


@dataclass(frozen=True)
class SASRecConfig:
    num_items: int
    embedding_size: int
    num_blocks: int
    num_heads: int
    dropout: float
    norm: Norm
    max_length: int


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
        self, x: Float[Tensor, "batch length size"], mask: Tensor
    ) -> Float[Tensor, "batch length size"]:
        if self.norm == "original":  # the residual starts from the normalised query, not from x
            query = self.attention_norm(x)
            x = self.feed_norm(query + self._attend(query, x, mask))
            return x + self._feed(x)
        if self.norm == "pre":
            normal = self.attention_norm(x)
            x = x + self._attend(normal, normal, mask)
            return x + self._feed(self.feed_norm(x))
        x = self.attention_norm(x + self._attend(x, x, mask))
        return self.feed_norm(x + self._feed(x))

    def _attend(self, query: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query(query), self.key(source), self.value(source))
        )
        drop = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=drop)
        return self.out(mixed.transpose(1, 2).flatten(-2))

    def _feed(self, x: Tensor) -> Tensor:
        inner = functional.dropout(self.inner(x), self.dropout, self.training).relu()
        return functional.dropout(self.outer(inner), self.dropout, self.training)


class SASRec(nn.Module):
    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config = config
        self.item_embedding = nn.Embedding(config.num_items + 1, config.embedding_size)
        self.position_embedding = nn.Embedding(config.max_length, config.embedding_size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.last_norm = nn.LayerNorm(config.embedding_size, eps=1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0  # the padding: Xavier would overwrite it (SPEC 6.13)

    @property
    def embedding_size(self) -> int:
        return self.config.embedding_size

    @property
    def digest(self) -> str:
        """Which weights these are."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def item_table(self) -> Float[Tensor, "indices size"]:
        """E, unscaled; row 0 is the padding's."""
        return self.item_embedding.weight.detach()

    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        """The state after each purchase; zero at padded positions."""
        length = histories.shape[1]
        real = histories != 0
        kept = real[:, :, None]
        first = self.config.max_length - length
        positions = torch.arange(first, self.config.max_length, device=histories.device)
        x = self.item_embedding(histories) * self.embedding_size**0.5
        x = functional.dropout(
            x + self.position_embedding(positions), self.config.dropout, self.training
        )
        x = x * kept
        mask = self._mask(real)
        for block in self.blocks:
            x = block(x, mask) * kept
        return self.last_norm(x) * kept

    @staticmethod
    def _mask(real: Tensor) -> Tensor:
        """What a position sees: real items up to itself; a padded one sees itself, lest its softmax be empty."""
        length = real.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=real.device)
        return ((causal & real[:, None, :]) | own)[:, None]

    @torch.no_grad()
    def represent(self, histories: Sequences) -> Float[Tensor, "rows size"]:
        """O_u: the state after the last purchase of each row; an empty row gives zeros."""
        was_training = self.training
        self.eval()
        device = self.item_embedding.weight.device
        states = torch.zeros(len(histories), self.embedding_size, device=device)
        tails = histories.last(self.config.max_length)
        order = np.argsort(tails.lengths, kind="stable")
        order = order[tails.lengths[order] > 0]
        for chunk in by_length(order, tails.lengths):
            block = torch.from_numpy(tails.take(chunk).padded()).to(device)
            states[torch.from_numpy(chunk).to(device)] = self(block)[:, -1]
        self.train(was_training)
        return states

    @torch.no_grad()
    def represent_positions(self, sequences: Sequences) -> Float[Tensor, "purchases size"]:
        """The state after every purchase, as `represent` would give it for each prefix.

        Positions count from the left of the full width, so a prefix stands elsewhere than inside the whole row:
        each prefix is a row of its own, and the window slides."""
        rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
        ends = np.arange(len(rows)) - sequences.offsets[rows] + 1
        return self.represent(sequences.take(rows, ends))

    def save(self, folder: Path) -> None:
        with whole_folder(folder) as aside:
            (aside / "config.json").write_text(
                json.dumps(dataclasses.asdict(self.config), indent=2) + "\n"
            )
            save_file(
                {name: tensor.contiguous() for name, tensor in self.state_dict().items()},
                aside / "model.safetensors",
            )

    @classmethod
    def load(cls, folder: Path) -> "SASRec":
        file = folder / "config.json"
        model = cls(from_mapping(SASRecConfig, read_json(file), where=str(file)))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()


def by_length(order: Int[np.ndarray, "rows"], lengths: Int[np.ndarray, "all"]) -> list[np.ndarray]:
    """Rows sorted by length, cut so that no chunk pads to more than BATCH_TOKENS positions, or a row to over twice."""
    found: list[np.ndarray] = []
    stop = len(order)
    while stop:
        longest = int(lengths[order[stop - 1]])
        alike = int(np.searchsorted(lengths[order[:stop]], longest // 2, side="right"))
        start = max(0, alike, stop - max(1, BATCH_TOKENS // longest))
        found.append(order[start:stop])
        stop = start
    return found
