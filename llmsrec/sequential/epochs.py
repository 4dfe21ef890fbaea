"""Epochs over users: what a step is, whichever network learns and from whichever loss."""

from abc import abstractmethod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.sequential.network import SequenceNetwork, SequenceTraining
from llmsrec.training import distributed
from llmsrec.training.batches import epoch_users, trainable_users
from llmsrec.training.loop import GradientTrainer, generator


class EpochTrainer(GradientTrainer):
    """One step at a time; what an epoch draws is decided by (seed, epoch) and the dropout's state."""

    def __init__(
        self,
        model: SequenceNetwork,
        train: Sequences,
        config: SequenceTraining,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.model, self.train, self.config = model, train, config
        self.usable = trainable_users(train)
        self.optimizer = optimizer

    @abstractmethod
    def loss(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        """Of a batch of users."""

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.config.learning_rate

    @property
    def steps_per_epoch(self) -> int:
        size, count = self.config.batch_size, len(self.usable)
        whole = self.config.sampling == "with_replacement"
        return max(1, count // size) if whole else -(-count // size)

    @property
    def network(self) -> SequenceNetwork:
        return self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def step(self, step: int) -> dict[str, float]:
        """The steps of an epoch follow one another from its first."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if place == 0:
            self._draws = generator(self.config.seed, epoch)
            size, sampling = self.config.batch_size, self.config.sampling
            self._batches = epoch_users(len(self.usable), size, sampling, self._draws)
        self.model.train()
        loss = self.loss(self.usable[next(self._batches)], self._draws)
        self.optimizer_step(loss, self.rate(step))
        return {"loss": distributed.all_reduce(loss.detach())}
