"""SASRec on item texts (specification 9): frozen text vectors through a trained adapter replace the item table."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from llmsrec.core.config import Count
from llmsrec.sequential.sasrec import SASRec
from llmsrec.sequential.trainer import TeacherConfig
from llmsrec.systems.causal import CausalSystem
from llmsrec.systems.system import TrainingInput
from llmsrec.systems.text_vectors import encoder_of, standardised, text_vectors


class TextTable(nn.Module):
    """Replaces an item table and starts with its spread: an adapter maps text vectors to item vectors."""

    def __init__(
        self, vectors: Float[Tensor, "indices width"], hidden: int, table: nn.Embedding
    ) -> None:
        super().__init__()
        self.vectors: Tensor
        self.register_buffer("vectors", standardised(vectors))
        last = nn.Linear(hidden, table.embedding_dim)
        self.adapter = nn.Sequential(nn.Linear(vectors.shape[1], hidden), nn.GELU(), last)
        self.adapter.to(vectors.device)
        with torch.no_grad():
            last.bias.zero_()
            scale = table.weight[1:].std() / self.weight[1:].std()
            last.weight *= scale.to(vectors.device)

    def forward(self, items: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape size"]:
        return self.adapter(self.vectors[items]) * (items != 0).unsqueeze(-1)

    @property
    def weight(self) -> Float[Tensor, "indices size"]:
        return self(torch.arange(len(self.vectors), device=self.vectors.device))


@dataclass(frozen=True)
class SASRecText(CausalSystem):
    """`config` is the section `teacher` with the changes of the system."""

    config: TeacherConfig
    encoder: str
    max_tokens: Count
    adapter_size: Count

    def network(self, inputs: TrainingInput) -> SASRec:
        texts = text_vectors(
            inputs.splits.catalog, encoder_of(self.encoder, inputs), self.max_tokens
        )
        network = self.config.build_network(inputs.splits.num_items)
        assert isinstance(network.item_embedding, nn.Embedding)
        network.item_embedding = TextTable(texts, self.adapter_size, network.item_embedding)
        return network
