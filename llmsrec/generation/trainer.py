"""Train generation: the target of each history is the title of its last training purchase (specification 3)."""

import numpy as np
from torch import nn

from llmsrec.data.splits import Splits, Targets
from llmsrec.finetuning.config import FineTuningConfig
from llmsrec.finetuning.schedule import build_optimizer, eval_steps, lr_factor
from llmsrec.generation.titles import Score, TitleAnswerer, TitleWriter
from llmsrec.preprocessing.candidates import draw_candidates, title_labels
from llmsrec.training.batches import Epochs, trainable_users
from llmsrec.training.loop import GradientTrainer, TrainingPlan
from llmsrec.training.seeding import generator
from llmsrec.training.validation import validation_rows


class TitleTrainer(GradientTrainer):
    """Minimises the cross-entropy of titles. What a step draws depends on (seed, epoch) and (seed, step) only."""

    def __init__(self, model: TitleWriter, splits: Splits, config: FineTuningConfig) -> None:
        self.model, self.config, self.train = model, config, splits.train
        self.epochs = Epochs(trainable_users(self.train), config.batch_size, config.seed, 1)
        self.labels = title_labels(splits.catalog)
        self.negatives = splits.generation_candidates["valid"].items.shape[1] - 1
        self.optimizer = build_optimizer(model.heads, config)

    @property
    def network(self) -> nn.Module:
        return self.model.heads

    @property
    def steps_per_epoch(self) -> int:
        return self.epochs.steps

    def step(self, step: int) -> dict[str, float]:
        self.model.train()
        users, draws = self.epochs.batch(step), generator(self.config.seed, 2, step)
        ends = self.train.lengths[users] - 1
        drawn = draw_candidates(
            self.train,
            Targets(users, ends),
            np.arange(len(users)),
            self.negatives,
            self.labels,
            draws,
        )
        histories = self.train.take(users, ends)
        shows_users = self.model.variant.user_vector
        vectors = self.model.teacher.represent(histories) if shows_users else None
        loss = self.model.loss(histories, drawn.items, drawn.targets, vectors)
        factor = lr_factor(self.config, step, self.steps_per_epoch)
        self.optimizer_step(loss, self.config.learning_rate * factor)
        return {"loss": float(loss.detach())}


def training_stage(
    model: TitleWriter, splits: Splits, config: FineTuningConfig, score: Score
) -> tuple[TitleTrainer, TrainingPlan]:
    """A trainer and its plan: validation at the configured steps; the best weights by HR@1 are kept."""
    trainer = TitleTrainer(model, splits, config)
    steps = eval_steps(config, trainer.steps_per_epoch)

    def validation() -> dict[str, float]:
        return validate(model, splits, config, score)

    return trainer, TrainingPlan("titles", validation, steps, config.patience, "hr@1")


def validate(
    model: TitleWriter, splits: Splits, config: FineTuningConfig, score: Score
) -> dict[str, float]:
    """HR@1 of the validation sample, and the share of its answers that name a candidate."""
    model.eval()
    stored = splits.generation_candidates["valid"]
    rows = validation_rows(len(stored), config.validation_users, config.seed)
    sample, targets = stored.take(rows), splits.targets["valid"]
    histories = splits.sequences.take(targets.users[sample.rows], targets.positions[sample.rows])
    columns = TitleAnswerer(model, score).answers(histories, sample.items)
    return {
        "hr@1": float((columns == sample.target_columns).mean()),
        "valid_answers": float((columns >= 0).mean()),
    }
