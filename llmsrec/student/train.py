"""Train LLM-SRec (SPEC 3, trainer; SPEC 4.9, objective)."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmsrec import parallel
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences, ranges
from llmsrec.data.splits import Splits
from llmsrec.student.backbone import Backbone
from llmsrec.student.config import StudentConfig
from llmsrec.student.examples import training_examples
from llmsrec.student.losses import (
    catalogue_loss,
    contrastive_loss,
    distillation_loss,
    retrieval_loss,
    uniformity_loss,
)
from llmsrec.student.model import LLMSRec
from llmsrec.student.padding import on_device
from llmsrec.student.pool import ItemPool
from llmsrec.student.ranker import StudentRanker, encode_items
from llmsrec.student.recipe import LLM_SREC
from llmsrec.student.schedule import looks_of, optimizer_of, rate
from llmsrec.teacher.batches import Epochs, NegativeSampler
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.train import valid_quality
from llmsrec.training import (
    Checkpoints,
    GradientTrainer,
    MetricLog,
    Plan,
    generator,
    seed_torch,
    train,
)

CENTRED_ON = 500  # users and items whose states `centred_start` looks at


def train_student(  # noqa: PLR0913 (the last one has a plain default)
    splits: Splits,
    teacher: SASRec,
    backbone: Backbone,
    config: StudentConfig,
    log: MetricLog,
    checkpoints: Checkpoints,
    start: Mapping[str, Tensor] | None = None,
) -> LLMSRec:
    """The student with the best validation; an interrupted run goes on from its last validation.

    `start` is what a student of the same shape has learned, to go on from."""
    seed_torch(config.seed)
    model = new_student(config, backbone, teacher, splits.catalog)
    train(*stage_of(model, splits, config, start), log, checkpoints)
    return model.eval()


def stage_of(
    model: LLMSRec,
    splits: Splits,
    config: StudentConfig,
    start: Mapping[str, Tensor] | None = None,
) -> tuple["Trainer", Plan]:
    """The training of a model as it starts, or from what one like it has learned."""
    trainer = Trainer(model, splits, config)
    trainer.start(start)

    def look() -> dict[str, float]:
        return {**validate(model, splits, config), "learning_rate": trainer.learning_rate}

    looks = looks_of(config, trainer.steps_per_epoch)
    return trainer, Plan("student", look, looks, config.patience, config.select_by)


def new_student(
    config: StudentConfig, backbone: Backbone, teacher: SASRec, catalog: Catalog
) -> LLMSRec:
    recipe = replace(LLM_SREC, user_slot=config.with_user_rep)
    return LLMSRec.untaught(config.model(backbone, teacher), backbone, teacher, catalog, recipe)


class Trainer(GradientTrainer):
    """One step at a time; what a step draws is decided by (seed, epoch) and (seed, step)."""

    def __init__(self, model: LLMSRec, splits: Splits, config: StudentConfig) -> None:
        self.model, self.config = model, config
        self.examples = training_examples(
            splits.train,
            config.examples,
            config.window,
            stride=config.stride,
            alone=config.with_user_rep,
        )
        self.owners, self.targets = self.examples.owners(), self.examples.targets()
        self.negatives = NegativeSampler(splits.train, splits.num_items)
        self.teacher_users: Tensor | None = None
        if model.recipe.user_slot or model.recipe.distils:
            # the teacher is frozen: what it says at each read-out is computed once (SPEC 6.1)
            shown = splits.train.take(self.owners, self.examples.ends())
            self.teacher_users = model.teacher.represent(shown)
        self.pool = ItemPool(
            self.examples,
            splits.num_items,
            batch_size=config.batch_size,
            own=config.train_negatives,
            shared=config.catalogue_negatives,
        )
        self.optimizer = optimizer_of(model.heads, config)
        self.epochs = Epochs(np.arange(len(self.examples)), config.batch_size, config.seed, 1)

    def start(self, learned: Mapping[str, Tensor] | None = None) -> None:
        """Before the first step; a run that was interrupted then takes its heads from its last validation."""
        self.model.keep_prefixes(self.config.prefix_cache_gb)
        if learned is not None:
            self.model.heads.load_state_dict(learned)
        elif self.config.centred_start:
            self.model.centre_heads(*self.some(CENTRED_ON))

    def some(self, count: int) -> tuple[Sequences, Int[np.ndarray, "items"]]:
        """A sample of what is shown, and of the catalogue."""
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
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, step: int) -> dict[str, Tensor]:
        """The terms stay where they are: to read them at each step would stop a GPU between two steps."""
        self.model.train()
        terms = self.losses(self.epochs.batch(step), generator(self.config.seed, 2, step))
        share = rate(self.config, step, self.steps_per_epoch)
        self.descend(terms["loss"], self.config.learning_rate * share)
        return {name: value.detach() for name, value in terms.items()}

    def losses(
        self, rows: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> dict[str, Tensor]:
        """The terms of the objective and their weighted sum; what does not distil has one."""
        config, reads = self.config, self.examples.reads(rows)
        places = self._places(rows)
        own = places[parallel.rank()]
        known = self.teacher_users
        if known is not None:
            known = known[on_device(reads[own], known.device)]
        mine = rows[parallel.shares(len(rows))[parallel.rank()]]
        users = parallel.gathered(self._users(mine, known), places)
        if not self.model.recipe.distils:
            return {"loss": self._retrieval(users, reads, draws)}
        distilled = parallel.gathered(self.model.heads.teacher_head(known), places)
        owners = on_device(self.owners[reads], users.device)
        uniformity = uniformity_loss(users, owners) + uniformity_loss(distilled, owners)
        terms = {
            "retrieval": self._retrieval(users, reads, draws),
            "distillation": self._distillation(users, distilled),
            "uniformity": uniformity,
        }
        loss = terms["retrieval"] + config.w_dis * terms["distillation"]
        return {"loss": loss + config.w_uni * uniformity, **terms}

    def _places(self, rows: Int[np.ndarray, "batch"]) -> parallel.Places:
        """Which of the batch's read-outs each process computes: those of its rows."""
        counts = self.examples.num_reads[rows]
        starts = np.cumsum(counts) - counts
        return [ranges(starts[some], counts[some])[0] for some in parallel.shares(len(rows))]

    def _users(
        self, rows: Int[np.ndarray, "batch"], teacher_users: Tensor | None
    ) -> Float[Tensor, "reads shared"]:
        if len(rows) == 0:  # of several processes, where a batch has fewer rows
            return torch.zeros(0, self.config.shared_size, device=self.model.backbone.device)
        histories = self.examples.histories(rows)
        if self.config.with_user_rep:  # each prompt shows the teacher's vector of its own moment
            return self.model.represent_users(histories, teacher_users)
        return self.model.represent_growing_users(histories, self.examples.first[rows])

    def _retrieval(
        self, users: Tensor, reads: Int[np.ndarray, "reads"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        """Items are encoded once however often the batch shows them."""
        targets, owners = self.targets[reads], self.owners[reads]
        own = self.negatives.draw(owners, self.config.train_negatives, draws)
        choices = np.concatenate([targets[:, None], own], axis=1)
        shared = self.pool.draw(draws)
        items = np.unique(np.concatenate([choices.ravel(), shared]))
        shares = parallel.shares(len(items))
        own_items = self.model.represent_items(items[shares[parallel.rank()]])
        scores = users @ parallel.gathered(own_items, shares).T
        place = on_device(np.searchsorted(items, choices), users.device)
        if not self.config.in_batch:
            return retrieval_loss(scores.gather(1, place))
        allowed = on_device(~self.negatives.owns(owners, items), users.device)
        chance = on_device(self.pool.chance[items], users.device)
        return catalogue_loss(scores, place[:, 0], chance, allowed)

    def _distillation(self, users: Tensor, teacher: Tensor) -> Float[Tensor, ""]:
        if self.config.distill == "contrastive":
            return contrastive_loss(users, teacher)
        return distillation_loss(
            users, teacher, normalize=self.config.normalize, reduction=self.config.dis_reduction
        )


@torch.no_grad()
def validate(model: LLMSRec, splits: Splits, config: StudentConfig) -> dict[str, float]:
    model.eval()
    ranker = StudentRanker(model, encode_items(model, splits.num_items))
    return valid_quality(ranker, splits, config.validation_users, config.seed)
