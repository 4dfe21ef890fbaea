"""Train a model of mode G: after each history, the title of its last training purchase (SPEC 3)."""

import numpy as np
from torch import nn

from llmsrec.data.splits import Splits, Targets
from llmsrec.generation.titles import Score, TitleAnswerer, TitleWriter
from llmsrec.preprocessing.candidates import draw_candidates, title_labels
from llmsrec.student.config import StudentConfig
from llmsrec.student.schedule import build_optimizer, eval_steps, lr_factor
from llmsrec.training.batches import Epochs, trainable_users
from llmsrec.training.loop import GradientTrainer, TrainingPlan, generator
from llmsrec.training.validation import validation_rows


class TitleTrainer(GradientTrainer):
    """One step at a time; what a step draws is decided by (seed, epoch) and (seed, step)."""

    def __init__(self, model: TitleWriter, splits: Splits, config: StudentConfig) -> None:
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
        known = self.model.teacher.represent(histories) if self.model.variant.user_vector else None
        loss = self.model.loss(histories, drawn.items, drawn.targets, known)
        share = lr_factor(self.config, step, self.steps_per_epoch)
        self.optimizer_step(loss, self.config.learning_rate * share)
        return {"loss": float(loss.detach())}


def training_stage(
    model: TitleWriter, splits: Splits, config: StudentConfig, score: Score
) -> tuple[TitleTrainer, TrainingPlan]:
    trainer = TitleTrainer(model, splits, config)
    looks = eval_steps(config, trainer.steps_per_epoch)

    def look() -> dict[str, float]:
        return validate(model, splits, config, score)

    return trainer, TrainingPlan("titles", look, looks, config.patience, "hr@1")


def validate(
    model: TitleWriter, splits: Splits, config: StudentConfig, score: Score
) -> dict[str, float]:
    """HR@1 over all users, and how many of them got an answer that is a candidate."""
    model.eval()
    stored = splits.generation_candidates["valid"]
    rows = validation_rows(len(stored), config.validation_users, config.seed)
    some, targets = stored.take(rows), splits.targets["valid"]
    shown = splits.sequences.take(targets.users[some.rows], targets.positions[some.rows])
    columns = TitleAnswerer(model, score).answers(shown, some.items)
    return {
        "hr@1": float((columns == some.target_columns).mean()),
        "valid_answers": float((columns >= 0).mean()),
    }
