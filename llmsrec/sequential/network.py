"""What networks that read one purchase after another share: a state for each history, and a way to be trained."""

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

BATCH_TOKENS = 1 << 14  # positions represented at a time


class SequenceNetwork(nn.Module, ABC):
    """An item's score is the product of the state and its row of the table, plus its bias where there is one."""

    max_length: int
    embedding_size: int

    @property
    @abstractmethod
    def output_table(self) -> Float[Tensor, "indices size"]:
        """A row for each item as the next one; row 0 is the padding's."""

    @property
    def output_bias(self) -> Float[Tensor, "indices"] | None:
        return None

    @abstractmethod
    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        """The state at each purchase of left padded rows; zero at padded positions."""

    @abstractmethod
    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        """The state that tells the next purchase, of rows of one length without padding."""

    @property
    def item_table(self) -> Float[Tensor, "indices size"]:
        """What `output_table` is, to read from."""
        return self.output_table.detach()

    @property
    def digest(self) -> str:
        """Which weights these are."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def represent(self, histories: Sequences) -> Float[Tensor, "rows size"]:
        """The newest state of each row, as `forward` has it; an empty row gives zeros.

        Rows of one length at a time: nothing is padded or masked."""
        was_training = self.training
        self.eval()
        device = next(self.parameters()).device
        states = torch.zeros(len(histories), self.embedding_size, device=device)
        tails = histories.last(self.max_length)
        for rows in by_length(tails.lengths):
            block = torch.from_numpy(tails.take(rows).padded()).to(device)
            states[torch.from_numpy(rows).to(device)] = self.last_state(block)
        self.train(was_training)
        return states


def by_length(lengths: Int[np.ndarray, "rows"]) -> Iterator[Int[np.ndarray, "some"]]:
    """The rows of each length but zero, at most BATCH_TOKENS positions (or a single row) at a time."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    for alike in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = max(1, BATCH_TOKENS // lengths[alike].max(initial=1))
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


@dataclass(frozen=True)
class PositionBatch:
    """Positions of a batch: the state there, the item that comes next, and whose it is."""

    states: Float[Tensor, "positions size"]
    targets: Int[Tensor, "positions"]
    users: Int[np.ndarray, "positions"]


@runtime_checkable  # tests check types at every call
class Loss(Protocol):
    def __call__(
        self, network: SequenceNetwork, lessons: PositionBatch, draws: np.random.Generator
    ) -> Float[Tensor, ""]: ...


@dataclass(frozen=True)
class SequenceTraining:
    """What trainings over users' sequences share."""

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
    patience: Count
    seed: int


@dataclass(frozen=True)
class CausalTraining(SequenceTraining, ABC):
    """A causal network and its training to tell the next item at every position."""

    @abstractmethod
    def build_network(self, num_items: int) -> SequenceNetwork: ...

    @abstractmethod
    def build_loss(self, train: Sequences, num_items: int) -> Loss:
        """What a step lowers."""

    def build_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.Adam(network.parameters(), lr=self.learning_rate, betas=(0.9, 0.98))
