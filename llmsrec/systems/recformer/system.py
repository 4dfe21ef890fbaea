"""RECFORMER as a system (specification 4.4): pre-training, two stages of fine-tuning, and cosines.

Differences from the authors' release: pre-training is on the dataset's own histories and not on seven others; no
training history is empty (specification 6.17); an item that does not fit is left out completely; an item that several
users of a batch bought is no negative of theirs; fine-tuning is selected on the stored valid candidates and never ends
worse than it started; the learning rate of stage 2 warms up and decays again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmsrec.core.errors import ConfigError
from llmsrec.systems.recformer import finetuning, pretraining
from llmsrec.systems.recformer.config import RecformerConfig
from llmsrec.systems.recformer.longformer import LongformerShape, build_longformer, load_longformer
from llmsrec.systems.recformer.network import Recformer, RecformerRanker
from llmsrec.systems.recformer.texts import NUM_TYPES, TextBuilder, Vocabulary
from llmsrec.systems.system import Stage, TrainingInput

PAD, START, MASK = 0, 1, 2  # rows of a small encoder's table before those of the tokenizer


@dataclass(frozen=True)
class RecformerSystem:
    config: RecformerConfig

    def network(self, inputs: TrainingInput) -> Recformer:
        if self.config.encoder == "small":
            encoder, tokenizer, vocabulary = self._small(inputs)
        else:
            encoder, tokenizer, vocabulary = self._loaded()
        text_builder = TextBuilder(tokenizer, inputs.splits.catalog, vocabulary, self.config.limits)
        return Recformer(encoder, text_builder, inputs.splits.num_items)

    def stages(self, network: Recformer, inputs: TrainingInput) -> Iterator[Stage]:
        config, splits, seed = self.config, inputs.splits, inputs.seed
        if config.pretrain_epochs:
            yield pretraining.stage(network, splits, config, seed)
        else:
            network.read_items()  # validated before fine-tuning
        yield finetuning.stage(network, splits, config, seed, rereads=True)
        if config.second_epochs:
            yield finetuning.stage(network, splits, config, seed, rereads=False)

    def model(self, network: Recformer, inputs: TrainingInput) -> RecformerRanker:
        return RecformerRanker(network, self.config.temperature)

    def _small(self, inputs: TrainingInput) -> tuple[Any, Any, Vocabulary]:
        """A small encoder with the language model's tokenizer and none of its weights."""
        config, tokenizer = self.config, inputs.language_model().tokenizer
        size = MASK + 1 + len(tokenizer)
        shape = LongformerShape(
            size,
            config.num_layers,
            config.hidden_size,
            config.num_heads,
            config.max_tokens,
            config.dropout,
        )
        encoder = build_longformer(shape, config.window, NUM_TYPES)
        return encoder, tokenizer, Vocabulary(MASK + 1, PAD, START, MASK, size)

    def _loaded(self) -> tuple[Any, Any, Vocabulary]:
        config = self.config
        encoder, tokenizer = load_longformer(
            config.encoder, config.revision, config.window, NUM_TYPES
        )
        pad, start, mask = tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.mask_token_id
        if None in (pad, start, mask):
            raise ConfigError(
                f"recformer.encoder: the tokenizer of {config.encoder} lacks a token for padding, start or masks"
            )
        positions = encoder.config.max_position_embeddings
        if config.max_tokens + pad + 1 > positions:
            raise ConfigError(
                f"recformer.max_tokens: {config.encoder} has positions for {positions - pad - 1} tokens at most"
            )
        size = encoder.config.vocab_size
        return encoder, tokenizer, Vocabulary(0, pad, start, mask, size)
