"""SASRec (specification 4.1): the network.

Rows are left padded, so the last purchase is in the last column. Positions count from the left of `max_length`
columns, whatever the width of a batch: trimming a batch to its longest row changes nothing.
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
from llmsrec.sequential.blocks import BLOCKS, SASRecConfig
from llmsrec.sequential.network import SequenceNetwork

__all__ = ["SASRec", "SASRecConfig"]


@runtime_checkable  # tests check types at every call
class ItemTable(Protocol):
    """An embedding, or a module that computes item vectors."""

    @property
    def weight(self) -> Tensor: ...

    def __call__(self, items: Tensor) -> Tensor: ...


class SASRec(SequenceNetwork):
    """Transformer blocks over item and position embeddings; the output layer shares the item embedding."""

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__()
        self.config, self.max_length = config, config.max_length
        self.embedding_size = config.embedding_size
        self.item_embedding: ItemTable = nn.Embedding(config.num_items + 1, config.embedding_size)
        self.position_embedding = nn.Embedding(config.max_length, config.embedding_size)
        self.blocks = nn.ModuleList(BLOCKS[config.layers](config) for _ in range(config.num_blocks))
        self.last_norm = nn.LayerNorm(config.embedding_size, eps=1e-8)
        self._dropped_table: Tensor | None = None  # of the current training step
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter)
        with torch.no_grad():
            self.item_embedding.weight[0] = (
                0  # padding; Xavier has overwritten it (specification 6.13)
            )

    def begin_step(self) -> None:
        """With LiGR layers, one dropout mask of the item table for input and output of a step, as eSASRec has it."""
        if self.config.layers == "ligr":
            table = self.item_embedding.weight
            self._dropped_table = functional.dropout(table, self.config.dropout, training=True)

    @property
    def output_table(self) -> Float[Tensor, "indices size"]:
        """E, unscaled; row 0 is padding. While training, with the dropout of the step."""
        dropped = self._dropped_table if self.training else None
        return self.item_embedding.weight if dropped is None else dropped

    @property
    def item_table(self) -> Float[Tensor, "indices size"]:
        """E without gradient and without dropout."""
        return self.item_embedding.weight.detach()

    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        """The state after each purchase; zero at padding."""
        is_item = histories != 0
        keep = is_item[:, :, None]
        x = self._embed(histories) * keep
        mask = self._mask(is_item)
        for block in self.blocks:
            x = block(x, mask) * keep
        return self.last_norm(x) * keep

    def _embed(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        positions = self.position_embedding.weight[-histories.shape[1] :]
        dropped = self._dropped_table if self.training else None
        items = (
            self.item_embedding(histories)
            if dropped is None
            else functional.embedding(histories, dropped)
        )
        x = items * self.embedding_size**0.5 + positions
        return functional.dropout(x, self.config.dropout, self.training)

    @staticmethod
    def _mask(is_item: Tensor) -> Tensor:
        """A position sees the items up to itself; padding sees itself, so that its softmax is not empty."""
        length = is_item.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=is_item.device).tril()
        diagonal = torch.eye(length, dtype=torch.bool, device=is_item.device)
        return ((causal & is_item[:, None, :]) | diagonal)[:, None]

    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        """O_u: the state after the last purchase. The last block computes this position alone."""
        x = self._embed(histories)
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, last_only=True)
        return self.last_norm(x)[:, 0]

    @torch.no_grad()
    def represent_positions(self, sequences: Sequences) -> Float[Tensor, "purchases size"]:
        """The result of `represent` for every prefix of every row.

        Each prefix is a row of its own, since its positions differ from those inside the whole row."""
        rows = np.repeat(np.arange(len(sequences)), sequences.lengths)
        ends = np.arange(len(rows)) - sequences.offsets[rows] + 1
        return self.represent(sequences.take(rows, ends))

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
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
        """A saved network in evaluation mode."""
        file = folder / "config.json"
        model = cls(from_mapping(SASRecConfig, read_json(file), where=str(file)))
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
