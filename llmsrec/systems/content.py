"""Systems that rank by item texts and train nothing."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from llmsrec.core.config import Count
from llmsrec.data.sequences import Sequences
from llmsrec.recommender.content import ContentRanker
from llmsrec.sequential.ranker import DotProductRanker
from llmsrec.systems.item_knn import CountingSystem
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.text_vectors import encoder_of, text_vectors, whitened


@dataclass(frozen=True)
class Content(CountingSystem):
    """TF-IDF of the item texts; the cosine with the mean of the `last` purchases, as in the recommender."""

    last: Count

    def model(self, network: nn.Module, inputs: TrainingInput) -> ContentRanker:
        """The ranker that the stage `recommender` adds to teacher and student."""
        return ContentRanker.fit(inputs.splits.catalog, self.last)


@dataclass(frozen=True)
class ContentLM(CountingSystem):
    """States of a language model, whitened to at most `components` dimensions (LLMSeqSim, arXiv 2309.09261).

    `encoder` reads the first `max_tokens` tokens of title and description; the `last` purchases count."""

    encoder: str
    max_tokens: Count
    components: Count
    last: Count

    def model(self, network: nn.Module, inputs: TrainingInput) -> "CosineRanker":
        """One pass of the encoder over the catalog."""
        encoder = encoder_of(self.encoder, inputs)
        texts = text_vectors(inputs.splits.catalog, encoder, self.max_tokens)
        return CosineRanker(whitened(texts, self.components), self.last)


class CosineRanker(DotProductRanker):
    """The cosine of an item's vector and the mean of those of the `last` purchases, each of unit length."""

    def __init__(self, vectors: Float[Tensor, "indices size"], last: int) -> None:
        """Row 0 of `vectors` is padding and zero."""
        super().__init__(normalize(vectors))
        self.last = last

    def user_vectors(self, histories: Sequences) -> Float[np.ndarray, "users size"]:
        """Unit vectors; zeros for an empty history."""
        tails = histories.last(self.last)
        device = self.item_vectors.device
        items, starts = (
            torch.from_numpy(each).to(device) for each in (tails.items, tails.offsets[:-1])
        )
        means = embedding_bag(items, self.item_vectors, starts, mode="mean")
        return normalize(means).cpu().numpy()
