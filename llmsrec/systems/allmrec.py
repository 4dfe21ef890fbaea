"""A-LLMRec (specification 4.8): stage 1 aligns items with texts, stage 2 trains a frozen language model's prompt."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmsrec.llm.backbone import Backbone
from llmsrec.llm.soft_prompts import PromptModel
from llmsrec.systems.alignment import (
    Alignment,
    AlignmentConfig,
    AlignmentTrainer,
    training_stage,
    unit_table,
)
from llmsrec.systems.language import LanguageRanker, LanguageWriter
from llmsrec.systems.system import Model, Stage, TrainingInput
from llmsrec.systems.text_vectors import encoder_of, mean_states, text_vectors, texts_of, tokenised


class ALLMRecNetwork(nn.Module):
    """The item slots of `reader` hold the item codes of `alignment`."""

    def __init__(self, inputs: TrainingInput, reader: PromptModel, config: AlignmentConfig) -> None:
        super().__init__()
        encoder = encoder_of(config.text_encoder, inputs)
        codes = reader.variant.code_size
        assert codes is not None
        self.reader = reader
        # trained in float32: bfloat16 would round small steps to zero
        tuned = encoder.model.float() if config.finetune_text else None
        sizes = inputs.teacher.embedding_size, encoder.hidden_size, codes
        self.alignment = Alignment(*sizes, tuned)
        self.texts = _Texts(inputs, encoder, config)

    @torch.no_grad()
    def fill_item_codes(self, inputs: TrainingInput) -> None:
        """Fill the table of the item slots; items without a purchase in training get the codes of their texts."""
        self.alignment.eval()
        everything = np.arange(inputs.splits.num_items + 1)
        bought = np.isin(everything, inputs.splits.train.items)
        codes = self.alignment.item_codes(unit_table(inputs.teacher).to(inputs.device))
        cold = everything[1:][~bought[1:]]
        if len(cold):
            codes[torch.from_numpy(cold)] = self.alignment.text_codes(self.texts(cold))
        self.reader.soft_prompts.table.copy_(codes)


class _Texts:
    """The vectors of items' texts: computed once, or at each call where the encoder is trained."""

    def __init__(self, inputs: TrainingInput, encoder: Backbone, config: AlignmentConfig) -> None:
        catalog = inputs.splits.catalog
        self.encoder: Backbone | None = None
        if config.finetune_text:
            self.encoder = encoder
            self.rows = tokenised(texts_of(catalog), encoder, config.text_tokens)
        else:  # the encoder is not needed after this
            self.vectors = text_vectors(catalog, encoder, config.text_tokens)

    def __call__(self, items: Int[np.ndarray, "items"]) -> Float[Tensor, "items text"]:
        if self.encoder is None:
            return self.vectors[torch.from_numpy(items).to(self.vectors.device)]
        unique, place = np.unique(items, return_inverse=True)
        vectors = mean_states([self.rows[item] for item in unique], self.encoder)
        return vectors[torch.from_numpy(place).to(vectors.device)]


@dataclass(frozen=True)
class ALLMRec:
    reading: LanguageRanker | LanguageWriter
    alignment: AlignmentConfig

    def network(self, inputs: TrainingInput) -> ALLMRecNetwork:
        return ALLMRecNetwork(inputs, self.reading.network(inputs), self.alignment)

    def stages(self, network: ALLMRecNetwork, inputs: TrainingInput) -> Iterator[Stage]:
        trainer = AlignmentTrainer(network.alignment, network.texts, inputs, self.alignment)
        yield Stage(*training_stage(trainer))
        network.fill_item_codes(inputs)  # the codes are fixed in stage 2
        yield from self.reading.stages(network.reader, inputs)  # type: ignore[arg-type]

    def model(self, network: ALLMRecNetwork, inputs: TrainingInput) -> Model:
        return self.reading.model(network.reader, inputs)  # type: ignore[arg-type]
