"""GRU4Rec (specification 4.2), after its authors: tied tables, raw scores, and a softmax over the negatives alone.

Without the authors' session-parallel batches, which save padding for many short sessions and cut the gradient at each
step: whole histories in one batch give the same states with the full gradient.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from llmsrec.core.config import Amount, Natural, Share
from llmsrec.data.sequences import Sequences
from llmsrec.sequential.losses import full_loss, sampled_softmax_loss
from llmsrec.sequential.network import CausalTraining, Loss, PositionBatch, SequenceNetwork
from llmsrec.sequential.trainer import scores_of_all_items


@dataclass(frozen=True)
class GRU4RecConfig(CausalTraining):
    embedding_dropout: Share
    hidden_dropout: Share
    loss: Literal["ce", "bpr_max"]
    negatives: Natural
    alpha: Amount
    logq: Share
    regulariser: Amount
    optimizer: Literal["adam", "adagrad"]

    def __post_init__(self) -> None:
        if self.loss == "bpr_max" and not self.negatives:
            raise ValueError("loss: bpr_max compares with negatives; set negatives above 0")

    def build_network(self, num_items: int) -> "GRU4Rec":
        return GRU4Rec(self, num_items)

    def build_loss(self, train: Sequences, num_items: int) -> Loss:
        return GRU4RecLoss(self, train, num_items)

    def build_optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        if self.optimizer == "adam":
            return super().build_optimizer(network)
        return torch.optim.Adagrad(network.parameters(), lr=self.learning_rate)


class GRU4Rec(SequenceNetwork):
    """Input and output share one item table; a hidden state has the width of an embedding."""

    def __init__(self, config: GRU4RecConfig, num_items: int) -> None:
        super().__init__()
        size = self.embedding_size = config.embedding_size
        self.max_length, self.config = config.max_length, config
        self.item_embedding = nn.Embedding(num_items + 1, size)
        self.gru = nn.GRU(size, size, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(num_items + 1))
        nn.init.xavier_normal_(self.item_embedding.weight)
        with torch.no_grad():
            self.item_embedding.weight[0] = 0

    @property
    def output_table(self) -> Float[Tensor, "indices size"]:
        return self.item_embedding.weight

    @property
    def output_bias(self) -> Float[Tensor, "indices"]:
        return self.bias

    def forward(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        """Padding is moved behind the purchases, so that it does not change the state."""
        real = histories != 0
        places = torch.arange(histories.shape[1], device=histories.device)
        pads = (~real).sum(dim=1, keepdim=True)
        states = self._read(histories.gather(1, (places + pads) % histories.shape[1]))
        back = ((places - pads) % histories.shape[1])[:, :, None].expand_as(states)
        states = states.gather(1, back) * real[:, :, None]
        return functional.dropout(states, self.config.hidden_dropout, self.training)

    def last_state(self, histories: Int[Tensor, "batch length"]) -> Float[Tensor, "batch size"]:
        return self._read(histories)[:, -1]

    def _read(self, rows: Int[Tensor, "batch length"]) -> Float[Tensor, "batch length size"]:
        x = self.item_embedding(rows) * (rows != 0)[:, :, None]
        x = functional.dropout(x, self.config.embedding_dropout, self.training)
        states, _ = self.gru(x)
        return states


class GRU4RecLoss:
    """The next item against all items, or against negatives of the step, drawn by popularity to the power alpha."""

    def __init__(self, config: GRU4RecConfig, train: Sequences, num_items: int) -> None:
        counts = np.bincount(train.items, minlength=num_items + 1)[1:]
        shares = counts**config.alpha / (counts**config.alpha).sum()
        self.config, self.edges = config, np.cumsum(shares)
        with np.errstate(
            divide="ignore"
        ):  # an item without purchases is neither a target nor drawn
            self.log_shares = torch.from_numpy(np.log(np.append(1, shares)).astype(np.float32))

    def __call__(
        self, network: SequenceNetwork, lessons: PositionBatch, draws: np.random.Generator
    ) -> Float[Tensor, ""]:
        config, state, targets = self.config, lessons.states, lessons.targets
        if not config.negatives:
            return full_loss(scores_of_all_items(network, state), targets - 1)
        drawn = self._draw(draws).to(state.device)
        table, bias = network.output_table, network.output_bias
        assert bias is not None
        positive = (state * table[targets]).sum(dim=-1) + bias[targets]
        negative = state @ table[drawn].T + bias[drawn]
        other = drawn != targets[:, None]
        if config.loss == "bpr_max":
            return bpr_max_loss(positive, negative, other, config.regulariser)
        log_shares = self.log_shares.to(state.device)
        negative = (negative - config.logq * log_shares[drawn]).masked_fill(~other, LOWEST)
        return sampled_softmax_loss(positive - config.logq * log_shares[targets], negative)

    def _draw(self, draws: np.random.Generator) -> Int[Tensor, "negatives"]:
        places = np.searchsorted(self.edges, draws.random(self.config.negatives), side="right")
        return torch.from_numpy(np.minimum(places, len(self.edges) - 1) + 1)


LOWEST = -1e9  # below every score, and finite for a row whose negatives are all its target


def bpr_max_loss(
    positive: Float[Tensor, "n"],
    negative: Float[Tensor, "n k"],
    other: Bool[Tensor, "n k"],
    regulariser: float,
) -> Float[Tensor, ""]:
    """-log sum_j w_j sigma(r_i - r_j) + lambda sum_j w_j r_j^2; w: softmax over the negatives without the target."""
    log_weights = negative.masked_fill(~other, LOWEST).log_softmax(dim=1)
    above = functional.logsigmoid(positive[:, None] - negative)
    size = (log_weights.exp() * negative.square()).sum(dim=1)
    return (regulariser * size - (log_weights + above).logsumexp(dim=1)).mean()
