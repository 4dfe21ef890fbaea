"""The interface of sequential networks: states of histories, the output table, the configuration of training."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmsrec.core.config import Amount, Count
from llmsrec.data.sequences import Sequences

BATCH_POSITIONS = 1 << 14  # of one forward pass in `represent`


class SequenceNetwork(nn.Module, ABC):
    """An item's score is the product of the state and the item's row of `output_table`, plus `output_bias` if any."""

    max_length: int
    embedding_size: int

    @property
    @abstractmethod
    def output_table(self) -> Float[Tensor, "indices size"]:
        """The output vector of each item; row 0 is padding."""

    @property
    def output_bias(self) -> Float[Tensor, "indices"] | None:
        return None

    @abstractmethod
    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        """The state after each purchase of left-padded rows; zero at padding."""

    @abstractmethod
    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        """The state that predicts the next purchase, for rows of equal length without padding."""

    def begin_step(self) -> None:
        """Draw what all forward passes of a training step share; nothing by default."""

    @property
    def item_table(self) -> Float[Tensor, "indices size"]:
        """`output_table` without gradient."""
        return self.output_table.detach()

    @property
    def digest(self) -> str:
        """SHA-256 of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def represent(self, histories: Sequences) -> Float[Tensor, "rows size"]:
        """The last state of each row in evaluation mode; zeros for an empty row.

        Rows of equal length run together, without padding."""
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        states = torch.zeros(len(histories), self.embedding_size, device=device)
        tails = histories.last(self.max_length)
        for rows in batches_by_length(tails.lengths):
            block = torch.from_numpy(tails.take(rows).padded()).to(device)
            states[torch.from_numpy(rows).to(device)] = self.last_state(block)
        self.train(was_training)
        return states


def batches_by_length(lengths: Int[np.ndarray, "rows"]) -> Iterator[Int[np.ndarray, "batch"]]:
    """Batches of rows of equal length, at most BATCH_POSITIONS positions or one row each; empty rows are left out."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    for rows in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = max(1, BATCH_POSITIONS // lengths[rows].max(initial=1))
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


@dataclass(frozen=True)
class PositionBatch:
    """The state, the next item and the user of every position of a batch."""

    states: Float[Tensor, "positions size"]
    targets: Int[Tensor, "positions"]
    users: Int[np.ndarray, "positions"]


@runtime_checkable  # tests check types at every call
class Loss(Protocol):
    """A loss over positions; negatives are drawn from the generator."""

    def __call__(
        self, network: SequenceNetwork, batch: PositionBatch, draws: np.random.Generator, /
    ) -> Float[Tensor, ""]: ...


@dataclass(frozen=True)
class SequenceTraining:
    """The settings that all trainings over histories share; params.yaml explains each field."""

    embedding_size: Count
    max_length: Count
    holdout: bool
    epochs: Count
    batch_size: Count
    learning_rate: Amount
    sampling: Literal["shuffle", "with_replacement"]
    keep_best: bool
    validate_every: Count
    validation_users: Count | None
    validation_ranking: Literal["sampled", "full"]
    patience: Count
    seed: int


@dataclass(frozen=True)
class CausalTraining(SequenceTraining, ABC):
    """The settings of a causal network that predicts the next item at every position."""

    @abstractmethod
    def build_network(self, num_items: int) -> SequenceNetwork: ...

    @abstractmethod
    def build_loss(self, train: Sequences, num_items: int) -> Loss:
        """The loss that training minimises."""

    def build_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), lr=self.learning_rate, betas=(0.9, 0.98))
