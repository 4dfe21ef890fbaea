"""A-LLMRec's first stage (specification 4.8): codes of items in which the teacher's vector and the text agree."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.core.config import Amount, Count
from llmsrec.data.sequences import Sequences
from llmsrec.sequential.network import SequenceNetwork
from llmsrec.sequential.ranker import DotProductRanker
from llmsrec.sequential.trainer import epoch_steps
from llmsrec.systems.system import TrainingInput
from llmsrec.training.batches import Epochs, NegativeSampler, trainable_users
from llmsrec.training.loop import GradientTrainer, TrainingPlan
from llmsrec.training.seeding import generator
from llmsrec.training.validation import validation_metrics

RECONSTRUCTION, TEXT_RECONSTRUCTION = 0.5, 0.2

Texts = Callable[[Int[np.ndarray, "items"]], Float[Tensor, "items text"]]


@dataclass(frozen=True)
class AlignmentConfig:
    """`text_encoder` is `backbone`, or the folder or hub name of any encoder; the paper uses a sentence encoder."""

    text_encoder: str
    text_tokens: Count
    finetune_text: bool
    epochs: Count
    batch_size: Count
    learning_rate: Amount  # of the two autoencoders
    text_learning_rate: Amount  # of the text encoder
    validation_users: Count | None


class Alignment(nn.Module):
    """Two autoencoders with codes of one size; `encoder` is the text encoder where it is trained."""

    def __init__(
        self, item_size: int, text_size: int, codes: int, encoder: nn.Module | None
    ) -> None:
        super().__init__()
        self.item_in, self.item_out = nn.Linear(item_size, codes), nn.Linear(codes, item_size)
        self.text_in, self.text_out = nn.Linear(text_size, codes), nn.Linear(codes, text_size)
        if encoder is not None:
            self.encoder = encoder.requires_grad_(True)

    def item_codes(self, items: Float[Tensor, "items size"]) -> Float[Tensor, "items codes"]:
        return self.item_in(items).sigmoid()

    def text_codes(self, texts: Float[Tensor, "items text"]) -> Float[Tensor, "items codes"]:
        return self.text_in(texts).sigmoid()


def unit_table(teacher: SequenceNetwork) -> Float[Tensor, "indices size"]:
    """The teacher's item table with a standard deviation of 1.

    The terms of the loss have fixed weights: with the small values of a table trained by cross-entropy, the error of
    the rebuilt items would be negligible beside the other terms."""
    return teacher.item_table / teacher.item_table[1:].std()


@torch.no_grad()
def explained_variance(alignment: Alignment, table: Float[Tensor, "indices size"]) -> float:
    """The share of the variance of the items' vectors that their rebuilt vectors explain; 1 is all."""
    items = table[1:]
    error = alignment.item_out(alignment.item_codes(items)) - items
    return 1 - float(error.square().sum() / (items - items.mean(dim=0)).square().sum())


def alignment_loss(
    alignment: Alignment,
    users: Float[Tensor, "users size"],
    items: Float[Tensor, "both size"],
    texts: Float[Tensor, "both text"],
) -> Float[Tensor, ""]:
    """L1 of specification 4.8; `items` and `texts` hold the users' targets, then a negative for each."""
    codes, text_codes = alignment.item_codes(items), alignment.text_codes(texts)
    rebuilt, rebuilt_texts = alignment.item_out(codes), alignment.text_out(text_codes)
    positive, negative = (users.repeat(2, 1) * rebuilt).mean(dim=1).chunk(2)
    loss = functional.softplus(-positive).mean() + functional.softplus(negative).mean()
    for part in range(2):  # the sum of two means, of targets and of negatives
        match, item, text = (
            functional.mse_loss(first.chunk(2)[part], second.chunk(2)[part])
            for first, second in (
                (codes, text_codes),
                (rebuilt, items),
                (rebuilt_texts, texts.detach()),
            )
        )
        loss = loss + match + RECONSTRUCTION * item + TEXT_RECONSTRUCTION * text
    return loss


class AlignmentTrainer(GradientTrainer):
    """One step for each batch of users; no gradient is carried over to the next batch (specification 6.17)."""

    def __init__(
        self, alignment: Alignment, texts: Texts, inputs: TrainingInput, config: AlignmentConfig
    ) -> None:
        self.alignment, self.texts, self.inputs, self.config = alignment, texts, inputs, config
        splits, teacher, self.seed = inputs.splits, inputs.teacher, inputs.seed
        self.table = unit_table(teacher)
        train: Sequences = splits.train
        self.users = trainable_users(train)
        self.epochs = Epochs(np.arange(len(self.users)), config.batch_size, self.seed, 1)
        ends = train.lengths[self.users] - 1
        self.targets = train.items[train.offsets[self.users] + ends]
        self.teacher_users = teacher.represent(
            train.take(self.users, ends)
        )  # computed once: the teacher is frozen
        self.negatives = NegativeSampler(train, splits.num_items)
        encoder = getattr(alignment, "encoder", None)
        maps = [
            part for name, part in alignment.named_parameters() if not name.startswith("encoder.")
        ]
        groups: list[dict[str, Any]] = [{"params": maps}]
        if encoder is not None:
            slower = config.text_learning_rate / config.learning_rate
            groups.append({"params": list(encoder.parameters()), "lr_multiplier": slower})
        self.optimizer = torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.98))

    @property
    def network(self) -> nn.Module:
        return self.alignment

    @property
    def steps_per_epoch(self) -> int:
        return self.epochs.steps

    def step(self, step: int) -> dict[str, float]:
        self.alignment.train()
        rows = self.epochs.batch(step)
        drawn = self.negatives.draw(self.users[rows], 1, generator(self.seed, 2, step))[:, 0]
        items = np.concatenate([self.targets[rows], drawn])
        vectors = self.table[torch.from_numpy(items).to(self.table.device)]
        users = self.teacher_users[torch.from_numpy(rows).to(self.table.device)]
        loss = alignment_loss(self.alignment, users, vectors, self.texts(items))
        self.optimizer_step(loss, self.config.learning_rate)
        return {"loss": float(loss.detach())}


class _Rebuilt(DotProductRanker):
    """A ranker of the teacher's user vectors and items rebuilt from their codes."""

    def __init__(self, alignment: Alignment, teacher: SequenceNetwork) -> None:
        super().__init__(alignment.item_out(alignment.item_codes(unit_table(teacher))))
        self.teacher = teacher

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        return self.teacher.represent(histories).cpu().numpy()


def training_stage(trainer: AlignmentTrainer) -> tuple[AlignmentTrainer, TrainingPlan]:
    """The trainer and its plan: all epochs without selection, since the original's inference uses the last."""
    config, steps, splits = trainer.config, trainer.steps_per_epoch, trainer.inputs.splits

    @torch.no_grad()
    def validate() -> dict[str, float]:
        ranker = _Rebuilt(trainer.alignment, trainer.inputs.teacher)
        metrics = validation_metrics(ranker, splits, config.validation_users, trainer.seed)
        return metrics | {"explained": explained_variance(trainer.alignment, trainer.table)}

    eval_steps = epoch_steps(config.epochs, 1, steps)
    return trainer, TrainingPlan(
        "alignment", validate, eval_steps, len(eval_steps), None, steps_per_log_unit=steps
    )
