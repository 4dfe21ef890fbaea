"""Pre-training RECFORMER (specification 4.4): the next item among those of the batch, and masked words."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.data.sequences import Sequences, ranges
from llmsrec.data.splits import Splits
from llmsrec.sequential.trainer import epoch_steps
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.examples import Examples
from llmsrec.systems.recformer.finetuning import rate, validate
from llmsrec.systems.recformer.network import Recformer
from llmsrec.systems.recformer.texts import SPECIAL, Texts
from llmsrec.systems.system import Stage
from llmsrec.training.loop import GradientTrainer, TrainingPlan

# BERT's shares of the chosen words; the remaining ones keep their tokens
MASKED, SWAPPED = 0.8, 0.1


class PretrainingModel(nn.Module):
    """The network and the head of masked words, which is dropped after pre-training."""

    def __init__(self, network: Recformer) -> None:
        super().__init__()
        self.network = network
        table = network.encoder.get_input_embeddings().weight
        size = table.shape[1]
        self.head = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.LayerNorm(size))
        self.bias = nn.Parameter(torch.zeros(len(table)))
        self.to(network.device)

    def words(self, states: Float[Tensor, "asked size"]) -> Float[Tensor, "asked vocabulary"]:
        """Scores of all words; the output table is the input table, as in the Longformer's own head."""
        table = self.network.encoder.get_input_embeddings().weight
        return self.head(states) @ table.T + self.bias


class Pretraining(GradientTrainer):
    """In-batch contrastive loss plus `mlm_weight` times the loss of masked words."""

    def __init__(self, network: Recformer, examples: Examples, config: RecformerConfig) -> None:
        self.model, self.examples, self.config = PretrainingModel(network), examples, config
        self.optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=0.0)
        self.total = examples.steps_per_epoch * config.pretrain_epochs

    @property
    def network(self) -> PretrainingModel:
        return self.model

    @property
    def steps_per_epoch(self) -> int:
        return self.examples.steps_per_epoch

    def step(self, step: int) -> dict[str, float]:
        self.model.train()
        config, draws = self.config, self.examples.draws(step)
        histories, targets = self.examples.batch(step, draws)
        torch.manual_seed(int(draws.integers(1 << 63)))  # dropout
        contrast = self.contrast(histories, targets)
        words = self.words(histories, draws)
        loss = contrast + config.mlm_weight * words
        share = rate(step, config.warmup_steps, self.total)
        self.optimizer_step(loss, config.pretrain_learning_rate * share)
        return {"loss": loss.item(), "contrast": contrast.item(), "words": words.item()}

    def contrast(
        self, histories: Sequences, targets: Int[np.ndarray, "users"]
    ) -> Float[Tensor, ""]:
        """An item that several users bought is one candidate, so that it is no negative of its own buyers."""
        network = self.model.network
        items, wanted = np.unique(targets, return_inverse=True)
        users = network.represent(network.text_builder.users(histories))
        vectors = network.represent(network.text_builder.items(items))
        scores = users @ vectors.T / self.config.temperature
        return functional.cross_entropy(scores, torch.from_numpy(wanted).to(scores.device))

    def words(self, histories: Sequences, draws: np.random.Generator) -> Float[Tensor, ""]:
        network = self.model.network
        texts = network.text_builder.users(histories)
        shown, masked_tokens = masked(
            texts, network.text_builder.vocabulary.mask, self.config.mlm_share, draws
        )
        states, wanted = [], []
        for rows in network.together(texts):
            where, offsets = ranges(texts.offsets[rows], texts.lengths[rows])
            row = np.repeat(np.arange(len(rows)), np.diff(offsets))[masked_tokens[where]]
            column = (np.arange(len(where)) - np.repeat(offsets[:-1], np.diff(offsets)))[
                masked_tokens[where]
            ]
            part = network.states(shown.take(rows))
            states.append(part[torch.from_numpy(row), torch.from_numpy(column)])
            wanted.append(texts.tokens[where][masked_tokens[where]])
        words = self.model.words(torch.cat(states))
        return functional.cross_entropy(
            words, torch.from_numpy(np.concatenate(wanted)).to(words.device)
        )


def masked(
    texts: Texts, mask: int, share: float, draws: np.random.Generator
) -> tuple[Texts, Bool[np.ndarray, "n"]]:
    """The texts with some words masked, and the mask of the tokens to predict: whole words, at least one.

    Every token of a masked word is the mask token; those of a swapped word are random tokens of these texts."""
    word = np.cumsum(texts.begins) - 1
    lot = draws.random(int(word[-1]) + 1)
    lot[word[texts.types == SPECIAL]] = np.inf
    chosen = lot < max(share, np.nextafter(lot.min(), 1))
    fate = draws.random(len(lot))
    swapped = chosen & (fate >= MASKED) & (fate < MASKED + SWAPPED)
    others = draws.choice(np.unique(texts.tokens[texts.types != SPECIAL]), len(word))
    tokens = np.where((chosen & (fate < MASKED))[word], mask, texts.tokens)
    tokens = np.where(swapped[word], others, tokens)
    return replace(texts, tokens=tokens), chosen[word]


def stage(network: Recformer, splits: Splits, config: RecformerConfig, seed: int) -> Stage:
    """Pre-training on the dataset's training histories; the best validation before fine-tuning is selected."""
    examples = Examples(splits.train, config.pretrain_batch_size, seed, 0)
    trainer = Pretraining(network, examples, config)
    eval_steps = epoch_steps(config.pretrain_epochs, config.validate_every, trainer.steps_per_epoch)

    def validate_pretrained() -> dict[str, float]:
        network.read_items()
        return validate(network, splits, config, seed)

    plan = TrainingPlan(
        "recformer, pre-training",
        validate_pretrained,
        eval_steps,
        config.patience,
        "ndcg@10",
        steps_per_log_unit=trainer.steps_per_epoch,
    )
    return Stage(trainer, plan)
