"""CTRL (specification 4.3), in its two published forms.

`init`, the paper's: texts as vectors, their principal components as the first item table of SASRec, all of it trained.
`contrastive`, the original idea: states of SASRec are first aligned with the text of the same history, then trained.
The pipeline's language model encodes the texts unless `encoder` names another one (the paper: roberta-base).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.core.config import Amount, Count
from llmsrec.data.catalog import Catalog
from llmsrec.data.sequences import Sequences
from llmsrec.sequential.epochs import EpochTrainer
from llmsrec.sequential.network import SequenceNetwork
from llmsrec.sequential.ranker import SequentialRanker
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import (
    TeacherConfig,
    epoch_steps,
    training_histories,
    training_stage,
)
from llmsrec.systems.system import Stage, TrainingInput
from llmsrec.systems.text_vectors import (
    encoded,
    encoder_of,
    principal,
    standardised,
    start_table,
    text_vectors,
)
from llmsrec.training.loop import TrainingPlan


@dataclass(frozen=True)
class CTRL:
    """`config` is the section `teacher` with its changes; the fields from `window` on belong to `contrastive`."""

    config: TeacherConfig
    variant: Literal["init", "contrastive"]
    encoder: str
    max_tokens: Count
    window: Count
    views: Count
    align_epochs: Count
    align_batch: Count
    align_rate: Amount

    def network(self, inputs: TrainingInput) -> SequenceNetwork:
        network = self.config.build_network(inputs.splits.num_items)
        encoder = encoder_of(self.encoder, inputs)
        if self.variant == "contrastive":
            return AlignedSASRec(network, encoder.hidden_size, self.views)
        texts = text_vectors(inputs.splits.catalog, encoder, self.max_tokens)
        start_table(network, principal(texts, network.embedding_size))
        return network

    def stages(self, network: SequenceNetwork, inputs: TrainingInput) -> Iterator[Stage]:
        config = replace(self.config, seed=inputs.seed)
        if isinstance(network, AlignedSASRec):
            yield self._alignment(network, inputs)
        yield Stage(*training_stage(network, inputs.splits, config, "CTRL"))

    def model(self, network: SequenceNetwork, inputs: TrainingInput) -> SequentialRanker:
        return SequentialRanker(network)

    def _alignment(self, network: "AlignedSASRec", inputs: TrainingInput) -> Stage:
        config = replace(
            self.config,
            seed=inputs.seed,
            batch_size=self.align_batch,
            learning_rate=self.align_rate,
        )
        train = training_histories(inputs.splits, config.holdout)
        prefixes = train.take(np.arange(len(train)), np.maximum(train.lengths - 1, 0))
        texts = texts_of(prefixes, inputs.splits.catalog, self.window)
        vectors = encoded(texts, encoder_of(self.encoder, inputs), self.max_tokens)
        trainer = AlignmentTrainer(network, train, config, prefixes, vectors)
        steps = trainer.steps_per_epoch
        eval_steps = epoch_steps(self.align_epochs, 1, steps)
        return Stage(
            trainer,
            TrainingPlan(
                "CTRL, alignment", dict, eval_steps, len(eval_steps), None, steps_per_log_unit=steps
            ),
        )


def texts_of(prefixes: Sequences, catalog: Catalog, window: int) -> list[str]:
    """The newest titles of each history, newest first, so that a limit on tokens drops the oldest."""
    tails = prefixes.last(window)
    return [
        "; ".join(catalog.titles[item] for item in tails[row][::-1].tolist())
        for row in range(len(tails))
    ]


class AlignedSASRec(SequenceNetwork):
    """SASRec with one more linear layer, and maps of its states and of texts into views of a shared space."""

    def __init__(self, backbone: SASRec, text_size: int, views: int) -> None:
        super().__init__()
        size = self.embedding_size = backbone.embedding_size
        self.max_length, self.backbone, self.views = backbone.max_length, backbone, views
        self.out = nn.Linear(size, size)
        self.state_map, self.text_map = nn.Linear(size, size), nn.Linear(text_size, size)
        self.state_views, self.text_views = (nn.Linear(size, views * size) for _ in range(2))

    @property
    def output_table(self) -> Float[Tensor, "indices size"]:
        return self.backbone.output_table

    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        return self.out(self.backbone(histories)) * (histories != 0)[:, :, None]

    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        return self.out(self.backbone.last_state(histories))

    def aligned(
        self, states: Float[Tensor, "batch size"], texts: Float[Tensor, "batch width"]
    ) -> tuple[Float[Tensor, "batch views size"], Float[Tensor, "batch views size"]]:
        """States and texts, each as views."""
        views = self.state_views(self.state_map(states)), self.text_views(self.text_map(texts))
        first, second = (part.unflatten(-1, (self.views, -1)) for part in views)
        return first, second


def matching_loss(
    states: Float[Tensor, "batch views size"], texts: Float[Tensor, "batch views size"]
) -> Float[Tensor, ""]:
    """The loss of matching states with texts: BCE of sum_m max_n <a_m, b_n>, 1 on the diagonal."""
    products = torch.einsum("imd,jnd->ijmn", states, texts)
    same = torch.eye(len(states), device=states.device)
    from_states, from_texts = products.amax(dim=3).sum(dim=2), products.amax(dim=2).sum(dim=2)
    losses = [
        functional.binary_cross_entropy_with_logits(scores, same)
        for scores in (from_states, from_texts)
    ]
    return (losses[0] + losses[1]) / 2


class AlignmentTrainer(EpochTrainer):
    """States before each user's last training purchase beside the text of the same history."""

    def __init__(
        self,
        model: AlignedSASRec,
        train: Sequences,
        config: TeacherConfig,
        prefixes: Sequences,
        texts: Float[Tensor, "users width"],
    ) -> None:
        super().__init__(model, train, config, config.build_optimizer(model))
        self.aligned, self.prefixes = model, prefixes
        self.texts = standardised(torch.cat([texts.new_zeros(1, texts.shape[1]), texts]))[1:]

    def loss(
        self, users: Int[np.ndarray, "batch"], draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        shown = self.prefixes.take(users).last(self.config.max_length).padded()
        states = self.aligned.backbone(torch.from_numpy(shown).to(self.device))[:, -1]
        texts = self.texts[torch.from_numpy(users).to(self.texts.device)]
        return matching_loss(*self.aligned.aligned(states, texts.to(self.device)))
