"""All of LLM-SRec that is trained: what writes into a prompt's slots, and what reads its end (SPEC 3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmsrec.config import Share

CENTRED_SCALE = 0.1  # docs/experiments.md: 1 is unstable at first, 0.3 learns a little slower


@dataclass(frozen=True)
class LLMSRecConfig:
    """What must be known to load a student; `backbone` and `teacher` name the weights it was trained with."""

    embedding_size: int
    hidden_size: int
    shared_size: int
    head_size: int
    window: int
    title_tokens: int
    max_prompt_tokens: int
    with_user_rep: bool
    backbone: str
    teacher: str
    slot_dropout: Share


def head(inner: int, middle: int, outer: int, activation: nn.Module) -> nn.Sequential:
    """Linear - LayerNorm - activation - Linear; every network around the backbone has this shape."""
    return nn.Sequential(
        nn.Linear(inner, middle), nn.LayerNorm(middle), activation, nn.Linear(middle, outer)
    )


class Heads(nn.Module):
    """All that is trained, in float32."""

    def __init__(self, config: LLMSRecConfig) -> None:
        super().__init__()
        hidden, shared = config.hidden_size, config.shared_size
        self.item_projector = head(config.embedding_size, hidden, hidden, nn.LeakyReLU(0.01))
        self.user_head = head(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
        self.item_head = head(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
        self.teacher_head = head(config.embedding_size, shared, shared, nn.GELU())
        self.soft_tokens = nn.Parameter(torch.zeros(2, hidden))  # the read-outs of users and items
        if config.with_user_rep:
            self.user_projector = head(config.embedding_size, hidden, hidden, nn.LeakyReLU(0.01))
        for module in (self.user_head, self.item_head):
            for layer in module:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_normal_(layer.weight)

    def writing(self) -> list[nn.Parameter]:
        """What fills slots: it acts through the whole backbone, the rest on what comes out of it."""
        networks = [self.item_projector]
        if hasattr(self, "user_projector"):
            networks.append(self.user_projector)
        return [self.soft_tokens, *(part for network in networks for part in network.parameters())]

    def reading(self) -> list[nn.Parameter]:
        writing = {id(part) for part in self.writing()}
        return [part for part in self.parameters() if id(part) not in writing]

    def start_tokens(self, table: Tensor) -> None:
        """Draw the soft tokens like the tokens of the backbone."""
        with torch.no_grad():
            mean, spread = table.float().mean(0), table.float().std(0)
            self.soft_tokens.copy_(mean + spread * torch.randn_like(self.soft_tokens))


@torch.no_grad()
def centre(network: nn.Sequential, states: Float[Tensor, "n hidden"]) -> None:
    """Start a head at what tells states apart: what they have in common is most of them, and cancelled by the first
    bias. The last weights start small, so that the first steps do not undo large random scores."""
    first, last = network[0], network[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    first.bias.copy_(-first.weight @ states.mean(dim=0))
    last.weight.mul_(CENTRED_SCALE)
