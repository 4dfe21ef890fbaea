"""BERT4Rec (specification 4.2): a history is read in both directions, and masked items are predicted from the others.

Training masks a share of each row and, in a copy of the row, the last item alone, as at inference. A masked item is
always [MASK]: a random item or the item itself in its place would never occur at inference.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.core.config import Amount, Count, Natural, Share
from llmsrec.data.sequences import Sequences
from llmsrec.sequential.blocks import attend
from llmsrec.sequential.epochs import EpochTrainer
from llmsrec.sequential.losses import full_loss
from llmsrec.sequential.network import SequenceNetwork, SequenceTraining
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.trainer import (
    scores_of_all_items,
    training_histories,
    training_plan,
)
from llmsrec.systems.system import Stage, TrainingInput
from llmsrec.training.batches import length_buckets

FEED_WIDTH = 4  # times the embedding, inside a position-wise network
SPREAD = 0.02  # of initial weights, as in BERT


@dataclass(frozen=True)
class BERT4RecConfig(SequenceTraining):
    num_blocks: Count
    num_heads: Count
    dropout: Share
    mask_share: Share
    weight_decay: Amount
    warm_up: Natural

    def __post_init__(self) -> None:
        if self.embedding_size % self.num_heads:
            raise ValueError("embedding_size must be a multiple of num_heads")


class Block(nn.Module):
    """BERT's block: attention to all items but padding, a position-wise network with GELU, each with a layer norm."""

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__()
        size = config.embedding_size
        self.num_heads, self.dropout = config.num_heads, config.dropout
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))
        self.attention_norm, self.feed_norm = nn.LayerNorm(size), nn.LayerNorm(size)
        self.inner = nn.Linear(size, FEED_WIDTH * size)
        self.outer = nn.Linear(FEED_WIDTH * size, size)

    def forward(
        self, x: Float[Tensor, "batch length size"], real: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length size"]:
        mixed = attend(self, x, x, real[:, None, None])
        x = self.attention_norm(x + functional.dropout(mixed, self.dropout, self.training))
        fed = self.outer(functional.gelu(self.inner(x)))
        return self.feed_norm(x + functional.dropout(fed, self.dropout, self.training))


class BERT4Rec(SequenceNetwork):
    """The last row of the item table is that of [MASK]."""

    def __init__(self, config: BERT4RecConfig, num_items: int) -> None:
        super().__init__()
        size = self.embedding_size = config.embedding_size
        self.max_length, self.dropout, self.mask = config.max_length, config.dropout, num_items + 1
        self.item_embedding = nn.Embedding(num_items + 2, size)
        self.position_embedding = nn.Embedding(config.max_length, size)
        self.first_norm = nn.LayerNorm(size)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_blocks))
        self.dense, self.last_norm = nn.Linear(size, size), nn.LayerNorm(size)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.trunc_normal_(parameter, std=SPREAD, a=-2 * SPREAD, b=2 * SPREAD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    @property
    def output_table(self) -> Float[Tensor, "indices size"]:
        return self.item_embedding.weight[:-1]

    @property
    def output_bias(self) -> Float[Tensor, "indices"]:
        return self.bias

    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        """The state at each position, which predicts the item at that position."""
        real = histories != 0
        x = self.item_embedding(histories) + self.position_embedding.weight[-histories.shape[1] :]
        x = functional.dropout(self.first_norm(x), self.dropout, self.training)
        for block in self.blocks:
            x = block(x, real)
        return self.last_norm(functional.gelu(self.dense(x))) * real[:, :, None]

    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        """The state of a [MASK] after the last purchase; a full row drops its oldest item for it."""
        shown = histories[:, max(0, histories.shape[1] + 1 - self.max_length) :]
        masks = shown.new_full((len(shown), 1), self.mask)
        return self(torch.cat([shown, masks], dim=1))[:, -1]


def hidden(
    block: Int[np.ndarray, "rows length"], share: float, draws: np.random.Generator
) -> Bool[np.ndarray, "rows length"]:
    """A random mask of a share of the items, at least one in each row; padding is never masked."""
    values = np.where(block != 0, draws.random(block.shape), 2.0)
    return (values < share) | (values == values.min(axis=1, keepdims=True))


class ClozeTrainer(EpochTrainer):
    """AdamW; the learning rate warms up and then falls linearly to zero."""

    def __init__(
        self, model: BERT4Rec, train: Sequences, num_items: int, config: BERT4RecConfig
    ) -> None:
        matrices = [part for part in model.parameters() if part.dim() > 1]
        vectors = [part for part in model.parameters() if part.dim() == 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},  # biases and norms, as in BERT
        ]
        optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)
        super().__init__(model, train, config, optimizer)
        self.share, self.warm_up, self.mask = config.mask_share, config.warm_up, num_items + 1

    def learning_rate(self, step: int) -> float:
        total = self.config.epochs * self.steps_per_epoch
        return self.config.learning_rate * min((step + 1) / max(1, self.warm_up), 1 - step / total)

    def loss(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        rows = self.train.take(users).last(self.config.max_length)
        states, targets = [], []
        for chunk in length_buckets(rows.lengths):
            tokens, items = self.lessons(rows.take(chunk).padded(), draws)
            masked = tokens == self.mask
            states.append(self.model(tokens.to(self.device))[masked.to(self.device)])
            targets.append(items[masked].to(self.device))
        return full_loss(scores_of_all_items(self.model, torch.cat(states)), torch.cat(targets) - 1)

    def lessons(
        self, block: Int[np.ndarray, "rows length"], draws: np.random.Generator
    ) -> tuple[Int[Tensor, "copies length"], Int[Tensor, "copies length"]]:
        """Masked rows and their items: rows with a share of items masked, then rows with the last item masked."""
        last = np.zeros(block.shape, dtype=bool)
        last[:, -1] = True
        items = np.concatenate([block, block])
        places = np.concatenate([hidden(block, self.share, draws), last])
        return torch.from_numpy(np.where(places, self.mask, items)), torch.from_numpy(items)


@dataclass(frozen=True)
class BERT4RecSystem:
    config: BERT4RecConfig

    def network(self, inputs: TrainingInput) -> BERT4Rec:
        return BERT4Rec(self.config, inputs.splits.num_items)

    def stages(self, network: BERT4Rec, inputs: TrainingInput) -> Iterator[Stage]:
        config, splits = replace(self.config, seed=inputs.seed), inputs.splits
        train = training_histories(splits, config.holdout)
        trainer = ClozeTrainer(network, train, splits.num_items, config)
        yield Stage(trainer, training_plan(trainer, splits, "BERT4Rec"))

    def model(self, network: BERT4Rec, inputs: TrainingInput) -> SequentialRanker:
        return SequentialRanker(network)
