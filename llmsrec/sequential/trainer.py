"""Train SASRec, or any causal network, to predict the next item (specification 4.1)."""

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
from llmsrec.sequential.sampled_scores import sampled_scores
from llmsrec.sequential.sasrec import SASRec
from llmsrec.training import distributed
from llmsrec.training.batches import NegativeSampler, bucket_by_length
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog, TrainingPlan, train
from llmsrec.training.seeding import seed_torch
from llmsrec.training.validation import validation_metrics


@dataclass(frozen=True)
class TeacherConfig(CausalTraining):
    """The section `teacher` of params.yaml."""

    num_blocks: Count
    num_heads: Count
    dropout: Share
    norm: Norm
    layers: Layers
    ligr_multiplier: Count
    loss: Literal["bce", "ce", "gbce", "sampled_softmax"]
    negatives: Count
    gbce_t: Share

    def __post_init__(self) -> None:
        if self.layers == "ligr" and self.norm != "pre":
            raise ValueError("layers: ligr normalises the input of each layer: set norm: pre")

    def network(self, num_items: int) -> SASRecConfig:
        """The shape of the network for a catalog of this size."""
        return SASRecConfig(
            num_items,
            self.embedding_size,
            self.num_blocks,
            self.num_heads,
            self.dropout,
            self.norm,
            self.max_length,
            self.layers,
            self.ligr_multiplier,
        )

    def build_network(self, num_items: int) -> SASRec:
        return SASRec(self.network(num_items))

    def build_loss(self, train: Sequences, num_items: int) -> Loss:
        return TeacherLoss(self, NegativeSampler(train, num_items))


class TeacherLoss:
    """The next item against negatives that the user has not bought (bce, gbce, sampled_softmax) or all items (ce)."""

    def __init__(self, config: TeacherConfig, negatives: NegativeSampler) -> None:
        self.config, self.negatives = config, negatives

    def __call__(
        self, network: SequenceNetwork, batch: PositionBatch, draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        config, states = self.config, batch.states
        if config.loss == "ce":
            return full_loss(scores_of_all_items(network, states), batch.targets - 1)
        table = network.output_table
        count = 1 if config.loss == "bce" else config.negatives
        drawn = self.negatives.draw(batch.users, count, draws)
        positive = (states * table[batch.targets]).sum(-1)
        negative = sampled_scores(states, table, torch.from_numpy(drawn).to(states.device))
        if config.loss == "bce":
            return binary_loss(positive, negative)
        if config.loss == "sampled_softmax":
            return sampled_softmax_loss(positive, negative)
        return generalised_binary_loss(positive, negative, len(table) - 1, config.gbce_t)


def scores_of_all_items(
    network: SequenceNetwork, states: Float[Tensor, "n size"]
) -> Float[Tensor, "n items"]:
    """Column i is the score of item index i + 1."""
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
    """The network with the best validation (or the last, without `keep_best`), on the CPU and in evaluation mode.

    An interrupted run resumes from `checkpoints`. `start` is a network of the same shape and items for a warm start."""
    seed_torch(config.seed)
    model = config.build_network(splits.num_items).to(device)
    if start is not None:
        model.load_state_dict(start.state_dict())
    train(*training_stage(model, splits, config, "teacher"), log, checkpoints)
    return model.eval().cpu()


def training_stage(
    model: SequenceNetwork, splits: Splits, config: CausalTraining, name: str
) -> tuple["CausalTrainer", TrainingPlan]:
    """A trainer and its plan; `name` labels the progress."""
    trainer = CausalTrainer(
        model, training_histories(splits, config.holdout), splits.num_items, config
    )
    return trainer, training_plan(trainer, splits, name)


def training_plan(trainer: EpochTrainer, splits: Splits, name: str) -> TrainingPlan:
    """Validation after every `validate_every` epochs and after the last."""
    config, steps = trainer.config, trainer.steps_per_epoch
    eval_steps = epoch_steps(config.epochs, config.validate_every, steps)
    select_by = "ndcg@10" if config.keep_best else None

    def validation() -> dict[str, float]:
        return validate(trainer.model, splits, config)

    return TrainingPlan(
        name, validation, eval_steps, config.patience, select_by, steps_per_log_unit=steps
    )


def epoch_steps(epochs: int, every: int, steps_per_epoch: int) -> list[int]:
    """The steps at the end of every `every` epochs and of the last."""
    return [steps_per_epoch * epoch for epoch in sorted({*range(every, epochs, every), epochs})]


class CausalTrainer(EpochTrainer):
    """Predicts the next item at every position of a batch."""

    def __init__(
        self, model: SequenceNetwork, train: Sequences, num_items: int, config: CausalTraining
    ) -> None:
        super().__init__(model, train, config, config.build_optimizer(model))
        self.criterion = config.build_loss(train, num_items)

    def loss(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        """The mean over all positions of the batch; of several processes, each returns its users' part of this mean."""
        local, draws = self._local(users, draws)
        if len(local) == 0:
            return self.model.output_table.sum() * 0.0
        states, targets, owners = [], [], []
        for bucket in bucket_by_length(self.train, local, self.config.max_length):
            inputs = bucket.inputs.to(self.device)
            states.append(self.model(inputs)[inputs != 0])
            targets.append(bucket.targets.to(self.device))
            owners.append(bucket.users)
        batch = PositionBatch(torch.cat(states), torch.cat(targets), np.concatenate(owners))
        share = len(batch.targets) / self._num_positions(users)
        return self.criterion(self.model, batch, draws) * share

    def _local(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> tuple[Int[np.ndarray, "local"], np.random.Generator]:
        """The users of this process and its generator; all processes draw the same batch of users."""
        if distributed.world_size() == 1:
            return users, draws
        local = users[distributed.shard(len(users))[distributed.rank()]]
        return local, draws.spawn(distributed.world_size())[distributed.rank()]

    def _num_positions(self, users: Int[np.ndarray, "batch"]) -> int:
        return int(np.minimum(self.train.lengths[users] - 1, self.config.max_length).sum())


def training_histories(splits: Splits, holdout: bool) -> Sequences:
    """The histories that are trained on; `holdout` drops each user's last purchase, a target of the student (9)."""
    train = splits.train
    return train.take(np.arange(len(train)), np.maximum(train.lengths - int(holdout), 0))


def validate(model: SequenceNetwork, splits: Splits, config: SequenceTraining) -> dict[str, float]:
    """NDCG@10 and HR@10 of the validation sample."""
    full = config.validation_ranking == "full"
    return validation_metrics(
        SequentialRanker(model), splits, config.validation_users, config.seed, full=full
    )
