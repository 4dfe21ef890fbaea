"""SASRec (SPEC 4.1): the network and nothing else.

Rows are left padded, so the newest purchase stands at the last column. Positions are counted from the left of the
full width, whatever the width of a batch: trimming a batch to its longest row changes nothing.
"""

import dataclasses
import json
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.core.config import from_mapping
from llmsrec.core.files import atomic_directory, read_json
from llmsrec.data.sequences import Sequences
from llmsrec.sequential.blocks import KINDS, SASRecConfig
from llmsrec.sequential.network import SequenceNetwork

__all__ = ["SASRec", "SASRecConfig"]


@runtime_checkable  # tests check types at every call
class ItemTable(Protocol):
    """An embedding, or what makes an item's vector of something else."""

    @property
    def weight(self) -> Tensor: ...

    def __call__(self, items: Tensor) -> Tensor: ...


class SASRec(SequenceNetwork):
    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config, self.max_length = config, config.max_length
        self.embedding_size = config.embedding_size
        self.item_embedding: ItemTable = nn.Embedding(config.num_items + 1, config.embedding_size)
        self.position_embedding = nn.Embedding(config.max_length, config.embedding_size)
        self.blocks = nn.ModuleList(KINDS[config.layers](config) for _ in range(config.num_blocks))
        self.last_norm = nn.LayerNorm(config.embedding_size, eps=1e-8)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0  # the padding: Xavier would overwrite it (SPEC 6.13)

    @property
    def output_table(self) -> Float[Tensor, "indices size"]:
        """E, unscaled; row 0 is the padding's."""
        return self.item_embedding.weight

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

    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        """O_u: the state after the last purchase. Only the newest position leaves the last block."""
        x = self._embed(histories)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, newest=True)
        return self.last_norm(x)[:, 0]

    @torch.no_grad()
    def represent_positions(self, sequences: Sequences) -> Float[Tensor, "purchases size"]:
        """The state after every purchase, as `represent` would give it for each prefix.

        Positions count from the left of the full width, so a prefix stands elsewhere than inside the whole row:
        each prefix is a row of its own, and the window slides."""
        rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
        ends = np.arange(len(rows)) - sequences.offsets[rows] + 1
        return self.represent(sequences.take(rows, ends))

    def save(self, folder: Path) -> None:
        with atomic_directory(folder) as aside:
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
        values = {"layers": "standard", **read_json(file)}  # a champion may be older than `layers`
        model = cls(from_mapping(SASRecConfig, values, where=str(file)))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
