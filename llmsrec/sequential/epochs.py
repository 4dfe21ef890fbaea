"""Training by epochs over users, for any sequential network and loss."""

from abc import abstractmethod

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.sequences import Sequences
from llmsrec.sequential.network import SequenceNetwork, SequenceTraining
from llmsrec.training import distributed
from llmsrec.training.batches import epoch_users, trainable_users
from llmsrec.training.loop import GradientTrainer
from llmsrec.training.seeding import generator


class EpochTrainer(GradientTrainer):
    """A step is a batch of users. What an epoch draws depends on (seed, epoch) and, for dropout, on torch's state."""

    def __init__(
        self,
        model: SequenceNetwork,
        train: Sequences,
        config: SequenceTraining,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.model, self.train, self.config = model, train, config
        self.users = trainable_users(train)
        self.optimizer = optimizer

    @abstractmethod
    def loss(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        """The loss of a batch of users."""

    def learning_rate(self, step: int) -> float:
        """The learning rate of step number `step`, from 0."""
        return self.config.learning_rate

    @property
    def steps_per_epoch(self) -> int:
        size, count = self.config.batch_size, len(self.users)
        full_batches = self.config.sampling == "with_replacement"
        return max(1, count // size) if full_batches else -(-count // size)

    @property
    def network(self) -> SequenceNetwork:
        return self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def step(self, step: int) -> dict[str, float]:
        """Run a step; an epoch must be run from its first step on."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        if step_in_epoch == 0:
            self._draws = generator(self.config.seed, epoch)
            size, sampling = self.config.batch_size, self.config.sampling
            self._batches = epoch_users(len(self.users), size, sampling, self._draws)
        self.model.train()
        self.model.begin_step()
        loss = self.loss(self.users[next(self._batches)], self._draws)
        self.optimizer_step(loss, self.learning_rate(step))
        return {"loss": distributed.all_reduce(loss.detach())}
