"""Train a retrieval model around its language model (specification 3, trainer)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmsrec.data.sequences import Sequences, ranges
from llmsrec.data.splits import Splits
from llmsrec.finetuning.config import FineTuningConfig
from llmsrec.finetuning.examples import training_examples
from llmsrec.finetuning.item_pool import ItemPool
from llmsrec.finetuning.losses import catalogue_loss, retrieval_loss
from llmsrec.finetuning.schedule import build_optimizer, eval_steps, lr_factor
from llmsrec.llm.padding import to_device
from llmsrec.llm.ranker import RetrievalRanker, encode_items
from llmsrec.llm.retrieval import RetrievalModel
from llmsrec.training import distributed
from llmsrec.training.batches import Epochs, NegativeSampler
from llmsrec.training.loop import GradientTrainer, TrainingPlan
from llmsrec.training.seeding import generator
from llmsrec.training.validation import validation_metrics

CENTERING_SAMPLE = 500  # users, and items, on whose states heads are centered


@dataclass(frozen=True)
class Batch:
    """The read-outs of a step, by number. `teacher_users` are O_u at those that this process computes, if needed."""

    rows: Int[np.ndarray, "local_rows"]  # of the examples that this process computes
    read_outs: Int[np.ndarray, "read_outs"]
    shards: distributed.Shards  # of the read-outs, by process
    teacher_users: Float[Tensor, "local_read_outs teacher"] | None


class RetrievalTrainer(GradientTrainer):
    """Minimises the retrieval loss. What a step draws depends on (seed, epoch) and (seed, step) only."""

    def __init__(self, model: RetrievalModel, splits: Splits, config: FineTuningConfig) -> None:
        self.model, self.config = model, config
        self.examples = training_examples(
            splits.train,
            config.examples,
            config.window,
            stride=config.stride,
            one_read_out_per_row=config.user_vector_in_prompt,
        )
        self.users, self.targets = self.examples.read_out_users(), self.examples.targets()
        self.negatives = NegativeSampler(splits.train, splits.num_items)
        self.teacher_users: Tensor | None = None
        if model.variant.user_vector or model.variant.distils:
            # computed once, since the teacher is frozen (specification 6.1)
            histories = splits.train.take(self.users, self.examples.history_lengths())
            self.teacher_users = model.teacher.represent(histories)
        self.pool = ItemPool(
            self.examples,
            splits.num_items,
            batch_size=config.batch_size,
            per_target=config.train_negatives,
            per_step=config.catalogue_negatives,
        )
        self.optimizer = build_optimizer(model.heads, config)
        self.epochs = Epochs(np.arange(len(self.examples)), config.batch_size, config.seed, 1)

    def prepare(self) -> None:
        """Cache the item texts and center the heads, as configured, before the first step."""
        self.model.cache_prefixes(self.config.prefix_cache_gb)
        if self.config.center_heads_at_init:
            self.model.center_heads(*self.sample(CENTERING_SAMPLE))

    def sample(self, count: int) -> tuple[Sequences, Int[np.ndarray, "items"]]:
        """The histories of `count` examples, and `count` items."""
        draws = generator(self.config.seed, 3)
        rows = draws.permutation(len(self.examples))[:count]
        items = 1 + draws.permutation(self.pool.num_items)[:count]
        return self.examples.histories(rows), items

    @property
    def steps_per_epoch(self) -> int:
        return self.epochs.steps

    @property
    def network(self) -> nn.Module:
        return self.model.heads

    @property
    def learning_rate(self) -> float:
        """Of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, step: int) -> dict[str, Tensor]:
        """As `Trainer.step`. The terms stay on the device: reading them would stop a GPU after each step."""
        self.model.train()
        terms = self.losses(self.epochs.batch(step), generator(self.config.seed, 2, step))
        factor = lr_factor(self.config, step, self.steps_per_epoch)
        self.optimizer_step(terms["loss"], self.config.learning_rate * factor)
        return {name: value.detach() for name, value in terms.items()}

    def losses(
        self, rows: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> dict[str, Tensor]:
        """The `loss` of these rows of the examples, and its terms if there are several."""
        batch = self.batch(rows)
        return {"loss": self.retrieval(self.represent_users(batch), batch.read_outs, draws)}

    def batch(self, rows: Int[np.ndarray, "batch"]) -> Batch:
        """Each process computes the read-outs of its rows."""
        read_outs, counts = self.examples.read_outs(rows), self.examples.num_read_outs[rows]
        starts = np.cumsum(counts) - counts
        row_shards = distributed.shard(len(rows))
        shards = [ranges(starts[shard], counts[shard])[0] for shard in row_shards]
        vectors = self.teacher_users
        if vectors is not None:
            vectors = vectors[to_device(read_outs[shards[distributed.rank()]], vectors.device)]
        return Batch(rows[row_shards[distributed.rank()]], read_outs, shards, vectors)

    def represent_users(self, batch: Batch) -> Float[Tensor, "read_outs shared"]:
        """The user vectors of all read-outs, gathered from all processes."""
        return distributed.all_gather(self._local_users(batch), batch.shards)

    def _local_users(self, batch: Batch) -> Float[Tensor, "local_read_outs shared"]:
        if len(batch.rows) == 0:  # a process without rows, in a small batch
            return torch.zeros(0, self.config.shared_size, device=self.model.backbone.device)
        histories = self.examples.histories(batch.rows)
        if self.config.user_vector_in_prompt:  # which differs at each read-out
            return self.model.represent_users(histories, batch.teacher_users)
        return self.model.represent_growing_users(histories, self.examples.skipped[batch.rows])

    def retrieval(
        self, users: Tensor, read_outs: Int[np.ndarray, "read_outs"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        """Eq. 1. Each distinct item of the step is encoded once."""
        targets, owners = self.targets[read_outs], self.users[read_outs]
        drawn = self.negatives.draw(owners, self.config.train_negatives, draws)
        choices = np.concatenate([targets[:, None], drawn], axis=1)
        items = np.unique(np.concatenate([choices.ravel(), self.pool.draw(draws)]))
        shards = distributed.shard(len(items))
        vectors = self.model.represent_items(items[shards[distributed.rank()]])
        scores = users @ distributed.all_gather(vectors, shards).T
        columns = to_device(np.searchsorted(items, choices), users.device)
        if not self.config.in_batch:
            return retrieval_loss(scores.gather(1, columns))
        allowed = to_device(~self.negatives.contains(owners, items), users.device)
        probability = to_device(self.pool.inclusion_probability[items], users.device)
        return catalogue_loss(scores, columns[:, 0], probability, allowed)


def retrieval_plan(trainer: RetrievalTrainer, splits: Splits, name: str) -> TrainingPlan:
    """Validation at the configured steps; the best weights by `select_by` are kept."""
    model, config = trainer.model, trainer.config

    def validation() -> dict[str, float]:
        metrics = validate(model, splits, config)
        return {**metrics, "learning_rate": trainer.learning_rate}

    steps = eval_steps(config, trainer.steps_per_epoch)
    return TrainingPlan(name, validation, steps, config.patience, config.select_by)


@torch.no_grad()
def validate(model: RetrievalModel, splits: Splits, config: FineTuningConfig) -> dict[str, float]:
    """NDCG@10 and HR@10 of the validation sample."""
    model.eval()
    ranker = RetrievalRanker(model, encode_items(model, splits.num_items))
    return validation_metrics(ranker, splits, config.validation_users, config.seed)
