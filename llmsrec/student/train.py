"""Train LLM-SRec (SPEC 3, trainer; SPEC 4.9, objective)."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.data.splits import Splits
from llmsrec.errors import DataError
from llmsrec.evaluation.metrics import hit_rate, ndcg
from llmsrec.evaluation.protocol import evaluate
from llmsrec.progress import Progress
from llmsrec.student.backbone import Backbone
from llmsrec.student.losses import (
    contrastive_loss,
    distillation_loss,
    retrieval_loss,
    uniformity_loss,
)
from llmsrec.student.model import LLMSRec, LLMSRecConfig
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.teacher.batches import NegativeSampler
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import validation_rows
from llmsrec.training import Checkpoints, EarlyStopping, MetricLog, generator


@dataclass(frozen=True)
class StudentConfig:
    window: int
    title_tokens: int
    max_prompt_tokens: int
    shared_size: int
    head_size: int
    examples: Literal["last_item", "auto_regressive"]
    train_negatives: int
    in_batch: bool
    w_dis: float
    w_uni: float
    dis_reduction: Literal["mean", "sum"]
    normalize: bool
    distill: Literal["mse", "contrastive"]
    with_user_rep: bool
    epochs: int
    batch_size: int
    learning_rate: float
    lr_decay: float
    validations_per_epoch: int
    validation_users: int | None
    patience: int
    seed: int

    def model(self, backbone: Backbone, teacher: SASRec) -> LLMSRecConfig:
        return LLMSRecConfig(
            embedding_size=teacher.embedding_size,
            hidden_size=backbone.hidden_size,
            shared_size=self.shared_size,
            head_size=self.head_size,
            window=self.window,
            title_tokens=self.title_tokens,
            max_prompt_tokens=self.max_prompt_tokens,
            with_user_rep=self.with_user_rep,
            backbone=backbone.digest,
            teacher=teacher.digest,
        )


@dataclass(frozen=True)
class Examples:
    """Example e: user `users[e]` is shown the first `ends[e]` training purchases, and the next one is to be found."""

    train: Sequences
    users: Int[np.ndarray, "examples"]
    ends: Int[np.ndarray, "examples"]

    def __len__(self) -> int:
        return len(self.users)

    def histories(self, rows: Int[np.ndarray, "batch"]) -> Sequences:
        return self.train.take(self.users[rows], self.ends[rows])

    def targets(self, rows: Int[np.ndarray, "batch"]) -> Int[np.ndarray, "batch"]:
        return self.train.items[self.train.offsets[self.users[rows]] + self.ends[rows]]


def training_examples(train: Sequences, kind: str) -> Examples:
    """`last_item`: one a user. `auto_regressive`: one for every purchase but the first."""
    usable = np.flatnonzero(train.lengths >= 2)
    if len(usable) == 0:
        raise DataError("no user has two training purchases: there is nothing to learn from")
    if kind == "last_item":
        return Examples(train, usable, train.lengths[usable] - 1)
    users = np.repeat(usable, train.lengths[usable] - 1)
    starts = np.concatenate([[0], np.cumsum(train.lengths[usable] - 1)])[:-1]
    ends = np.arange(len(users)) - np.repeat(starts, train.lengths[usable] - 1) + 1
    return Examples(train, users, ends)


@dataclass
class Position:
    """How far a training is; all that `range` loops would forget when a run is killed."""

    step: int = 0
    looks: int = 0
    stopping: EarlyStopping = field(default_factory=lambda: EarlyStopping(1))


def train_student(
    splits: Splits,
    teacher: SASRec,
    backbone: Backbone,
    config: StudentConfig,
    log: MetricLog,
    checkpoints: Checkpoints,
) -> LLMSRec:
    """The student with the best validation; an interrupted run goes on from its last validation."""
    torch.manual_seed(config.seed)
    model = new_student(config, backbone, teacher, splits.catalog)
    trainer = Trainer(model, splits, config)
    position = Position(stopping=EarlyStopping(config.patience))
    best = _copy(model)
    if state := checkpoints.load():
        trainer.restore(state)
        best = state["best"]
        position = Position(state["step"], state["looks"], EarlyStopping(**state["stopping"]))
        log.restore(state["rows"])
    total = config.epochs * trainer.steps_per_epoch
    due = validation_steps(trainer.steps_per_epoch, config.validations_per_epoch)
    progress = Progress("student", total - position.step, "steps")
    losses: list[dict[str, float]] = []
    while position.step < total and not position.stopping.stop:
        losses.append(trainer.step(position.step))
        position.step += 1
        progress.advance(note=f"loss {losses[-1]['loss']:.3f}")
        if (position.step - 1) % trainer.steps_per_epoch + 1 not in due:
            continue
        metrics = validate(model, splits, config)
        means = {name: float(np.mean([row[name] for row in losses])) for name in losses[0]}
        losses.clear()
        position.looks += 1
        log(position.step, **means, **metrics, learning_rate=trainer.learning_rate)
        if position.stopping.update(metrics["hr@10"], position.step):
            best = _copy(model)
        trainer.decay()
        checkpoints.save(
            {
                **trainer.state(),
                "best": best,
                "step": position.step,
                "looks": position.looks,
                "stopping": vars(position.stopping),
                "rows": log.rows,
            }
        )
    model.heads.load_state_dict(best)
    return model.eval()


def new_student(
    config: StudentConfig, backbone: Backbone, teacher: SASRec, catalog: Catalog
) -> LLMSRec:
    teacher = teacher.eval().requires_grad_(False).to(backbone.device)
    model = LLMSRec(config.model(backbone, teacher), backbone, teacher, catalog)
    model.heads.start_tokens(backbone.token_table)
    return model


class Trainer:
    """One step at a time; what a step draws is decided by (seed, epoch) and (seed, step)."""

    def __init__(self, model: LLMSRec, splits: Splits, config: StudentConfig) -> None:
        self.model, self.config = model, config
        self.examples = training_examples(splits.train, config.examples)
        self.negatives = NegativeSampler(splits.train, splits.num_items)
        self.owned = [frozenset(splits.train[user].tolist()) for user in range(splits.num_users)]
        # the teacher is frozen: what it says of each example is computed once (SPEC 6.1)
        self.teacher_users = model.teacher.represent(
            self.examples.histories(np.arange(len(self.examples)))
        )
        self.optimizer = torch.optim.Adam(
            model.heads.parameters(), lr=config.learning_rate, betas=(0.9, 0.98)
        )
        self._order: tuple[int, Int[np.ndarray, examples]] = (-1, np.zeros(0, np.int64))

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.config.batch_size)

    @property
    def learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def batch(self, step: int) -> Int[np.ndarray, "batch"]:
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = generator(self.config.seed, 1, epoch).permutation(len(self.examples))
            self._order = (epoch, order)
        size = self.config.batch_size
        return self._order[1][place * size : (place + 1) * size]

    def step(self, step: int) -> dict[str, float]:
        self.model.train()
        rows = self.batch(step)
        terms = self.losses(rows, generator(self.config.seed, 2, step))
        self.optimizer.zero_grad()
        terms["loss"].backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return {name: float(value.detach()) for name, value in terms.items()}

    def losses(
        self, rows: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> dict[str, Tensor]:
        """The three terms and their sum; items are encoded once however often the batch shows them."""
        config, model, examples = self.config, self.model, self.examples
        teacher_users = self.teacher_users[torch.from_numpy(rows).to(self.teacher_users.device)]
        users = model.represent_users(examples.histories(rows), teacher_users)
        targets = examples.targets(rows)
        drawn = self.negatives.draw(examples.users[rows], config.train_negatives, draws)
        choices = np.concatenate([targets[:, None], drawn], axis=1)
        unique, place = np.unique(choices, return_inverse=True)
        items = model.represent_items(unique)
        scores = torch.einsum(
            "ud,ucd->uc", users, items[torch.from_numpy(place.reshape(choices.shape))]
        )
        if config.in_batch:
            scores = torch.cat([scores, self._in_batch(rows, users, unique, items)], dim=1)
        distilled = model.heads.teacher_head(teacher_users)
        terms = {
            "retrieval": retrieval_loss(scores),
            "distillation": self._distillation(users, distilled),
            "uniformity": uniformity_loss(users) + uniformity_loss(distilled),
        }
        loss = terms["retrieval"] + config.w_dis * terms["distillation"]
        return {"loss": loss + config.w_uni * terms["uniformity"], **terms}

    def _distillation(self, users: Tensor, teacher: Tensor) -> Float[Tensor, ""]:
        if self.config.distill == "contrastive":
            return contrastive_loss(users, teacher)
        return distillation_loss(
            users, teacher, normalize=self.config.normalize, reduction=self.config.dis_reduction
        )

    def _in_batch(
        self, rows: Int[np.ndarray, "batch"], users: Tensor, unique: np.ndarray, items: Tensor
    ) -> Float[Tensor, "batch others"]:
        """All other items of the batch as negatives too, but for those the user has in training."""
        owned = np.array(
            [
                [item in self.owned[user] for item in unique.tolist()]
                for user in self.examples.users[rows]
            ]
        )
        scores = users @ items.T
        return scores.masked_fill(torch.from_numpy(owned).to(scores.device), -torch.inf)

    def decay(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] *= self.config.lr_decay

    def state(self) -> dict[str, Any]:
        return {
            "heads": self.model.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.model.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])


def validation_steps(steps_per_epoch: int, looks: int) -> set[int]:
    """After which steps of an epoch (1-based) to look; always at its end, never zero steps apart (SPEC 6.8)."""
    every = max(1, steps_per_epoch // max(1, looks))
    return {*range(every, steps_per_epoch + 1, every), steps_per_epoch}


@torch.no_grad()
def validate(model: LLMSRec, splits: Splits, config: StudentConfig) -> dict[str, float]:
    model.eval()
    rows = validation_rows(len(splits.candidates["valid"]), config.validation_users, config.seed)
    ranker = StudentRanker(model, encode_items(model, splits.num_items))
    ranks = evaluate(ranker, splits, "valid", rows=rows, full=False).sampled
    return {"hr@10": float(hit_rate(ranks, 10).mean()), "ndcg@10": float(ndcg(ranks, 10).mean())}


def _copy(model: LLMSRec) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.heads.state_dict().items()}
