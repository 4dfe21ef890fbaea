"""SASRec (SPEC 4.1): the network and nothing else.

Rows are left padded, so the newest purchase stands at the last column. Positions are counted from the left of the
full width, whatever the width of a batch: trimming a batch to its longest row changes nothing.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
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
BATCH_TOKENS = 1 << 14  # positions represented at a time


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
            read = self.feed_norm(query + self._attend(query, x, mask))
            return read + self._feed(read)
        if self.norm == "pre":
            normal = self.attention_norm(x)
            read = read + self._attend(normal[:, -read.shape[1] :], normal, mask)
            return read + self._feed(self.feed_norm(read))
        read = self.attention_norm(read + self._attend(read, x, mask))
        return self.feed_norm(read + self._feed(read))

    def _attend(self, query: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.query(query), self.key(source), self.value(source))
        )
        drop = self.dropout if self.training else 0.0
        causal = mask is None and query.shape[1] > 1  # the newest position alone sees all
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=drop, is_causal=causal
        )
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
        real = histories != 0
        kept = real[:, :, None]
        x = self._embed(histories) * kept
        mask = self._mask(real)
        for block in self.blocks:
            x = block(x, mask) * kept
        return self.last_norm(x) * kept

    def _embed(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        positions = self.position_embedding.weight[-histories.shape[1] :]
        x = self.item_embedding(histories) * self.embedding_size**0.5 + positions
        return functional.dropout(x, self.config.dropout, self.training)

    @staticmethod
    def _mask(real: Tensor) -> Tensor:
        """What a position sees: real items up to itself; a padded one sees itself, lest its softmax be empty."""
        length = real.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
        own = torch.eye(length, dtype=torch.bool, device=real.device)
        return ((causal & real[:, None, :]) | own)[:, None]

    @torch.no_grad()
    def represent(self, histories: Sequences) -> Float[Tensor, "rows size"]:
        """O_u: the state after the last purchase of each row, as `forward` has it; an empty row gives zeros.

        Rows of one length at a time: nothing is padded or masked. Only the newest position leaves the last block."""
        was_training = self.training
        self.eval()
        device = self.item_embedding.weight.device
        states = torch.zeros(len(histories), self.embedding_size, device=device)
        tails = histories.last(self.config.max_length)
        for rows in by_length(tails.lengths):
            x = self._embed(torch.from_numpy(tails.take(rows).padded()).to(device))
            for block in self.blocks[:-1]:
                x = block(x)
            x = self.blocks[-1](x, newest=True)
            states[torch.from_numpy(rows).to(device)] = self.last_norm(x)[:, 0]
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


def by_length(lengths: Int[np.ndarray, "rows"]) -> Iterator[Int[np.ndarray, "some"]]:
    """The rows of each length but zero, at most BATCH_TOKENS positions (or a single row) at a time."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    for alike in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = max(1, BATCH_TOKENS // lengths[alike].max(initial=1))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))
