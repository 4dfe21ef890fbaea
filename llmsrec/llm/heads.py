"""All of LLM-SRec that is trained: what writes into a prompt's slots, and what reads its end (SPEC 3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmsrec.core.config import Share
from llmsrec.llm.variants import LLM_SREC, LLMVariant

CENTERED_SCALE = 0.1  # docs/experiments.md: 1 is unstable at first, 0.3 learns a little slower


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
    user_vector_in_prompt: bool
    backbone: str
    teacher: str
    item_vector_dropout: Share


def head(inner: int, middle: int, outer: int, activation: nn.Module) -> nn.Sequential:
    """Linear - LayerNorm - activation - Linear; every network around the backbone has this shape."""
    return nn.Sequential(
        nn.Linear(inner, middle), nn.LayerNorm(middle), activation, nn.Linear(middle, outer)
    )


class Heads(nn.Module):
    """All that is trained, in float32."""

    def __init__(self, config: LLMSRecConfig, variant: LLMVariant = LLM_SREC) -> None:
        super().__init__()
        known, hidden, shared = config.embedding_size, config.hidden_size, config.shared_size
        if variant.item_vectors:
            activation = nn.LeakyReLU(0.01) if variant.code_size is None else nn.GELU()
            self.item_projector = head(variant.code_size or known, hidden, hidden, activation)
        if variant.mode == "retrieval":
            self.user_head = head(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
            self.item_head = head(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
            if variant.distils:
                self.teacher_head = head(known, shared, shared, nn.GELU())
            self.soft_tokens = nn.Parameter(torch.zeros(2, hidden))  # read-outs of users and items
        if variant.user_vector:
            self.user_projector = head(known, hidden, hidden, nn.LeakyReLU(0.01))
        self.lora = nn.ParameterDict()  # of the language model: see lora.py
        for module in self.output_heads():
            for layer in module:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_normal_(layer.weight)

    def output_heads(self) -> list[nn.Sequential]:
        """The networks that read the language model's states."""
        return [getattr(self, name) for name in ("user_head", "item_head") if hasattr(self, name)]

    def projectors(self) -> list[nn.Parameter]:
        """What takes the teacher's vectors into slots."""
        names = ("item_projector", "user_projector")
        networks = [getattr(self, name) for name in names if hasattr(self, name)]
        return [part for network in networks for part in network.parameters()]

    def input_parameters(self) -> list[nn.Parameter]:
        """What fills slots: it acts through the whole backbone, the rest on what comes out of it."""
        soft = [self.soft_tokens] if hasattr(self, "soft_tokens") else []
        return [*soft, *self.projectors()]

    def output_parameters(self) -> list[nn.Parameter]:
        writing = {id(part) for part in self.input_parameters()}
        return [part for part in self.parameters() if id(part) not in writing]

    def init_soft_tokens(self, table: Tensor) -> None:
        """Draw the soft tokens like the tokens of the backbone."""
        with torch.no_grad():
            mean, spread = table.float().mean(0), table.float().std(0)
            self.soft_tokens.copy_(mean + spread * torch.randn_like(self.soft_tokens))


@torch.no_grad()
def center_head(network: nn.Sequential, states: Float[Tensor, "n hidden"]) -> None:
    """Start a head at what tells states apart: what they have in common is most of them, and cancelled by the first
    bias. The last weights start small, so that the first steps do not undo large random scores."""
    first, last = network[0], network[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    first.bias.copy_(-first.weight @ states.mean(dim=0))
    last.weight.mul_(CENTERED_SCALE)
