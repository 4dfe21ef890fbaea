"""Fine-tuning RECFORMER (specification 4.4): users are encoded with gradients, items are fixed in a matrix.

Stage 1 recomputes all items at the start of each epoch; stage 2 starts from its best epoch with that epoch's matrix.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.sequential.trainer import epoch_steps
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.examples import Examples
from llmsrec.systems.recformer.network import Recformer, RecformerRanker
from llmsrec.systems.system import Stage
from llmsrec.training.loop import GradientTrainer, TrainingPlan
from llmsrec.training.validation import validation_metrics


class FineTuning(GradientTrainer):
    """Full softmax over all items. The loss of a row depends on no other row, so a step may be split."""

    def __init__(
        self, network: Recformer, examples: Examples, config: RecformerConfig, *, rereads: bool
    ) -> None:
        self.model, self.examples, self.config, self.rereads = network, examples, config, rereads
        self.optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.0)
        self.total = examples.steps_per_epoch * (config.epochs if rereads else config.second_epochs)

    @property
    def network(self) -> Recformer:
        return self.model

    @property
    def steps_per_epoch(self) -> int:
        return self.examples.steps_per_epoch

    def step(self, step: int) -> dict[str, float]:
        if self.rereads and step % self.steps_per_epoch == 0:
            self.model.read_items()
        self.model.train()
        draws = self.examples.draws(step)
        histories, targets = self.examples.batch(step, draws)
        torch.manual_seed(int(draws.integers(1 << 63)))  # dropout
        self.optimizer.zero_grad()
        loss = 0.0
        order = np.argsort(
            histories.lengths, kind="stable"
        )  # rows of similar length: little padding
        for start in range(0, len(order), self.config.batch_size):
            rows = order[start : start + self.config.batch_size]
            part = self.loss(histories.take(rows), targets[rows]) / len(order)
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.item()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * rate(
                step, self.config.warmup_steps, self.total
            )
        self.optimizer.step()
        return {"loss": loss}

    def loss(self, histories: Sequences, targets: Int[np.ndarray, "users"]) -> Float[Tensor, ""]:
        """The loss summed over the users."""
        users = self.model.represent(self.model.text_builder.users(histories))
        scores = users @ self.model.item_matrix[1:].T / self.config.temperature
        wanted = torch.from_numpy(targets - 1).to(scores.device)
        return functional.cross_entropy(scores, wanted, reduction="sum")


def stage(
    network: Recformer, splits: Splits, config: RecformerConfig, seed: int, *, rereads: bool
) -> Stage:
    """A stage that validates before its first step too, so that it never ends worse than it started."""
    size = config.batch_size * config.accumulation
    examples = Examples(splits.train, size, seed, 1 if rereads else 2)
    trainer = FineTuning(network, examples, config, rereads=rereads)
    epochs = config.epochs if rereads else config.second_epochs
    plan = TrainingPlan(
        "recformer, items read anew" if rereads else "recformer, items fixed",
        lambda: validate(network, splits, config, seed),
        [0, *epoch_steps(epochs, config.validate_every, trainer.steps_per_epoch)],
        config.patience if rereads else config.second_patience,
        "ndcg@10",
        steps_per_log_unit=trainer.steps_per_epoch,
    )
    return Stage(trainer, plan)


def validate(
    network: Recformer, splits: Splits, config: RecformerConfig, seed: int
) -> dict[str, float]:
    """Validation metrics with the current item matrix."""
    ranker = RecformerRanker(network, config.temperature)
    return validation_metrics(ranker, splits, config.validation_users, seed)


def rate(step: int, warmup: int, total: int) -> float:
    """The factor of the learning rate: linear warm-up to 1, then linear decay to 0 after the last step."""
    if step < warmup:
        return (step + 1) / warmup
    return (total - step) / max(1, total - warmup)
