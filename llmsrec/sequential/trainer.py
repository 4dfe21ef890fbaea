"""Train SASRec, or any causal network, on the training histories (SPEC 4.1)."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.core.config import Count, Share
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.sequential.blocks import Layers, Norm, SASRecConfig
from llmsrec.sequential.epochs import EpochTrainer
from llmsrec.sequential.losses import (
    binary_loss,
    full_loss,
    generalised_binary_loss,
    sampled_softmax_loss,
)
from llmsrec.sequential.network import (
    CausalTraining,
    Loss,
    PositionBatch,
    SequenceNetwork,
    SequenceTraining,
)
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.training import distributed
from llmsrec.training.batches import NegativeSampler, bucket_by_length
from llmsrec.training.loop import Checkpoints, MetricLog, TrainingPlan, seed_torch
from llmsrec.training.loop import train as run
from llmsrec.training.validation import validation_metrics


@dataclass(frozen=True)
class TeacherConfig(CausalTraining):
    num_blocks: Count
    num_heads: Count
    dropout: Share
    norm: Norm
    layers: Layers
    loss: Literal["bce", "ce", "gbce", "sampled_softmax"]
    negatives: Count
    gbce_t: Share

    def __post_init__(self) -> None:
        if self.layers == "ligr" and self.norm != "pre":
            raise ValueError("layers: ligr normalises before each part; set norm: pre")

    def network(self, num_items: int) -> SASRecConfig:
        return SASRecConfig(
            num_items,
            self.embedding_size,
            self.num_blocks,
            self.num_heads,
            self.dropout,
            self.norm,
            self.max_length,
            self.layers,
        )

    def build_network(self, num_items: int) -> SASRec:
        return SASRec(self.network(num_items))

    def build_loss(self, train: Sequences, num_items: int) -> Loss:
        return TeacherLoss(self, NegativeSampler(train, num_items))


class TeacherLoss:
    """The next item against negatives that the user has not bought, or against the whole catalogue."""

    def __init__(self, config: TeacherConfig, negatives: NegativeSampler) -> None:
        self.config, self.negatives = config, negatives

    def __call__(
        self, network: SequenceNetwork, lessons: PositionBatch, draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        config, state = self.config, lessons.states
        if config.loss == "ce":
            return full_loss(positive_and_negative_scores(network, state), lessons.targets - 1)
        table = network.output_table
        count = 1 if config.loss == "bce" else config.negatives
        drawn = self.negatives.draw(lessons.users, count, draws)
        positive = (state * table[lessons.targets]).sum(-1)
        others = table[torch.from_numpy(drawn).to(state.device)]
        negative = torch.einsum("nd,nkd->nk", state, others)
        if config.loss == "bce":
            return binary_loss(positive, negative)
        if config.loss == "sampled_softmax":
            return sampled_softmax_loss(positive, negative)
        return generalised_binary_loss(positive, negative, len(table) - 1, config.gbce_t)


def positive_and_negative_scores(
    network: SequenceNetwork, states: Float[Tensor, "n size"]
) -> Float[Tensor, "n items"]:
    """Of every item but the padding."""
    scores = states @ network.output_table[1:].T
    return scores if network.output_bias is None else scores + network.output_bias[1:]


def train_teacher(
    splits: Splits,
    config: TeacherConfig,
    log: MetricLog,
    checkpoints: Checkpoints,
    device: torch.device | str = "cpu",
    start: SASRec | None = None,
) -> SASRec:
    """The trained network, on the CPU; a run that was interrupted goes on from its last validation.

    `start` is a network of the same shape and items to go on from."""
    seed_torch(config.seed)
    model = config.build_network(splits.num_items).to(device)
    if start is not None:
        model.load_state_dict(start.state_dict())
    run(*training_stage(model, splits, config, "teacher"), log, checkpoints)
    return model.eval().cpu()


def training_stage(
    model: SequenceNetwork, splits: Splits, config: CausalTraining, name: str
) -> tuple["Trainer", TrainingPlan]:
    trainer = Trainer(model, training_histories(splits, config.holdout), splits.num_items, config)
    return trainer, training_plan(trainer, splits, name)


def training_plan(trainer: EpochTrainer, splits: Splits, name: str) -> TrainingPlan:
    """A look every few epochs, and after the last."""
    config, steps = trainer.config, trainer.steps_per_epoch
    looks = every_few(config.epochs, config.validate_every, steps)
    select_by = "ndcg@10" if config.keep_best else None

    def look() -> dict[str, float]:
        return validate(trainer.model, splits, config)

    return TrainingPlan(name, look, looks, config.patience, select_by, steps_per_log_unit=steps)


def every_few(epochs: int, every: int, steps_per_epoch: int) -> list[int]:
    """The steps at which so many epochs are over, and after the last."""
    return [steps_per_epoch * epoch for epoch in sorted({*range(every, epochs, every), epochs})]


class Trainer(EpochTrainer):
    """Of a causal network: every position of a batch is a lesson."""

    def __init__(
        self, model: SequenceNetwork, train: Sequences, num_items: int, config: CausalTraining
    ) -> None:
        super().__init__(model, train, config, config.build_optimizer(model))
        self.criterion = config.build_loss(train, num_items)

    def loss(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        """Over all positions of all rows of the batch alike, whichever group they were computed in.

        Of several processes each has a part of this mean: that of its own users."""
        own, draws = self._own(users, draws)
        if len(own) == 0:
            return self.model.output_table.sum() * 0.0
        states, targets, owners = [], [], []
        for group in bucket_by_length(self.train, own, self.config.max_length):
            inputs = group.inputs.to(self.device)
            states.append(self.model(inputs)[inputs != 0])
            targets.append(group.targets.to(self.device))
            owners.append(group.users)
        lessons = PositionBatch(torch.cat(states), torch.cat(targets), np.concatenate(owners))
        share = len(lessons.targets) / self._positions(users)
        return self.criterion(self.model, lessons, draws) * share

    def _own(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> tuple[Int[np.ndarray, "share"], np.random.Generator]:
        """Processes draw the same users, and then each for itself."""
        if distributed.world_size() == 1:
            return users, draws
        own = users[distributed.shard(len(users))[distributed.rank()]]
        return own, draws.spawn(distributed.world_size())[distributed.rank()]

    def _positions(self, users: Int[np.ndarray, "batch"]) -> int:
        return int(np.minimum(self.train.lengths[users] - 1, self.config.max_length).sum())


def training_histories(splits: Splits, holdout: bool) -> Sequences:
    """What the teacher fits: with `holdout`, without the purchase it will be asked to teach (SPEC 9)."""
    train = splits.train
    return train.take(np.arange(len(train)), np.maximum(train.lengths - int(holdout), 0))


def validate(model: SequenceNetwork, splits: Splits, config: SequenceTraining) -> dict[str, float]:
    return validation_metrics(SequentialRanker(model), splits, config.validation_users, config.seed)
