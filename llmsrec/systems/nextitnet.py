"""NextItNet (specification 4.2): dilated causal convolutions over the history, and a linear map to every item."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.core.config import Count, Share
from llmsrec.data.sequences import Sequences
from llmsrec.sequential.losses import full_loss
from llmsrec.sequential.network import CausalTraining, Loss, PositionBatch, SequenceNetwork
from llmsrec.sequential.trainer import scores_of_all_items

DILATIONS = (1, 4)  # of a block's first convolution; its second is dilated twice as much


@dataclass(frozen=True)
class NextItNetConfig(CausalTraining):
    kernel: Count
    repeats: Count  # of all dilations
    dropout: Share

    def build_network(self, num_items: int) -> "NextItNet":
        return NextItNet(self, num_items)

    def build_loss(self, train: Sequences, num_items: int) -> Loss:
        return catalogue_loss


def catalogue_loss(
    network: SequenceNetwork, lessons: PositionBatch, draws: object
) -> Float[Tensor, ""]:
    return full_loss(scores_of_all_items(network, lessons.states), lessons.targets - 1)


class CausalConvolution(nn.Module):
    """A causal convolution with positions `dilation` apart, layer norm and ReLU."""

    def __init__(self, size: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.reach = (kernel - 1) * dilation
        self.convolution = nn.Conv1d(size, size, kernel, dilation=dilation)
        self.norm = nn.LayerNorm(size)

    def forward(self, x: Float[Tensor, "batch length size"]) -> Float[Tensor, "batch length size"]:
        before = functional.pad(x.transpose(1, 2), (self.reach, 0))
        return self.norm(self.convolution(before).transpose(1, 2)).relu()


class ResidualBlock(nn.Module):
    def __init__(self, size: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.first = CausalConvolution(size, kernel, dilation)
        self.second = CausalConvolution(size, kernel, 2 * dilation)

    def forward(
        self, x: Float[Tensor, "batch length size"], real: Bool[Tensor, "batch length 1"]
    ) -> Float[Tensor, "batch length size"]:
        """Padding is held at zero, like what precedes the row, so that the width of a batch changes nothing."""
        return x + self.second(self.first(x) * real) * real


class NextItNet(SequenceNetwork):
    def __init__(self, config: NextItNetConfig, num_items: int) -> None:
        super().__init__()
        size = self.embedding_size = config.embedding_size
        self.max_length, self.dropout = config.max_length, config.dropout
        self.item_embedding = nn.Embedding(num_items + 1, size)
        self.blocks = nn.ModuleList(
            ResidualBlock(size, config.kernel, dilation) for dilation in DILATIONS * config.repeats
        )
        self.out = nn.Linear(size, num_items + 1)
        # embeddings start with a spread of 1: the blocks add only positive values, which would hide smaller ones
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    @property
    def output_table(self) -> Float[Tensor, "indices size"]:
        return self.out.weight

    @property
    def output_bias(self) -> Float[Tensor, "indices"]:
        return self.out.bias

    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        real = (histories != 0)[:, :, None]
        x = functional.dropout(self.item_embedding(histories), self.dropout, self.training) * real
        for block in self.blocks:
            x = block(x, real)
        return x

    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        return self(histories)[:, -1]
