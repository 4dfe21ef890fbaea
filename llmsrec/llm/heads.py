"""The trained networks around the language model (specification 3): projectors into prompts, heads for its states."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from llmsrec.core.config import Share
from llmsrec.llm.prompts import PromptKind
from llmsrec.llm.variants import LLM_SREC, LLMVariant

CENTERED_SCALE = (
    0.1  # docs/notes/experiments.md: 1 is unstable at first, 0.3 learns a little slower
)


@dataclass(frozen=True)
class PromptModelConfig:
    """All sizes that loading needs; `backbone` and `teacher` are the digests of the weights it was trained with."""

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
    prompt: PromptKind = "full"  # of models that were saved before there was another


def mlp(
    input_size: int, hidden_size: int, output_size: int, activation: nn.Module
) -> nn.Sequential:
    """Linear - LayerNorm - activation - Linear, the shape of every network around the backbone."""
    return nn.Sequential(
        nn.Linear(input_size, hidden_size),
        nn.LayerNorm(hidden_size),
        activation,
        nn.Linear(hidden_size, output_size),
    )


class Heads(nn.Module):
    """All trained parameters, in float32. Which networks exist depends on the variant."""

    def __init__(self, config: PromptModelConfig, variant: LLMVariant = LLM_SREC) -> None:
        super().__init__()
        teacher, hidden, shared = config.embedding_size, config.hidden_size, config.shared_size
        if variant.item_vectors:
            activation = nn.LeakyReLU(0.01) if variant.code_size is None else nn.GELU()
            self.item_projector = mlp(variant.code_size or teacher, hidden, hidden, activation)
        if variant.mode == "retrieval":
            self.user_head = mlp(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
            self.item_head = mlp(hidden, config.head_size, shared, nn.LeakyReLU(0.01))
            if variant.distils:
                self.teacher_head = mlp(teacher, shared, shared, nn.GELU())
            self.soft_tokens = nn.Parameter(torch.zeros(2, hidden))  # of users, of items
        if variant.user_vector:
            self.user_projector = mlp(teacher, hidden, hidden, nn.LeakyReLU(0.01))
        self.lora = nn.ParameterDict()  # of the language model: see lora.py
        for head in self.output_heads():
            for layer in head:
                if isinstance(layer, nn.Linear):
                    nn.init.xavier_normal_(layer.weight)

    def output_heads(self) -> list[nn.Sequential]:
        """The networks that map states of the language model."""
        return [getattr(self, name) for name in ("user_head", "item_head") if hasattr(self, name)]

    def projectors(self) -> list[nn.Parameter]:
        """The parameters of the networks that map the teacher's vectors into the token space."""
        names = ("item_projector", "user_projector")
        networks = [getattr(self, name) for name in names if hasattr(self, name)]
        return [parameter for network in networks for parameter in network.parameters()]

    def input_parameters(self) -> list[nn.Parameter]:
        """Soft tokens and projectors: their gradients pass through the whole backbone."""
        soft = [self.soft_tokens] if hasattr(self, "soft_tokens") else []
        return [*soft, *self.projectors()]

    def output_parameters(self) -> list[nn.Parameter]:
        """All other parameters."""
        inputs = {id(parameter) for parameter in self.input_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in inputs]

    @torch.no_grad()
    def init_soft_tokens(self, token_table: Tensor) -> None:
        """Draw each dimension from a normal with the mean and standard deviation of the backbone's tokens."""
        mean, deviation = token_table.float().mean(0), token_table.float().std(0)
        self.soft_tokens.copy_(mean + deviation * torch.randn_like(self.soft_tokens))


@torch.no_grad()
def center_head(head: nn.Sequential, states: Float[Tensor, "n hidden"]) -> None:
    """Initialise a head so that the mean of `states` maps to zero in its first layer, and scale its last weights down.

    States differ little from their mean; small last weights avoid large random scores in the first steps."""
    first, last = head[0], head[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    first.bias.copy_(-first.weight @ states.mean(dim=0))
    last.weight.mul_(CENTERED_SCALE)
