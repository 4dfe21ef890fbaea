"""How the systems with a language model differ (specification 3): what prompts hold and what is trained.

One model serves them all; LLM-SRec is a row of this table.
"""

from dataclasses import dataclass
from typing import Literal

from llmsrec.core.config import Amount, Count, Share

LAYERS = {
    "query_value": ("q_proj", "v_proj"),
    "linear": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}
Mode = Literal["retrieval", "generation"]


@dataclass(frozen=True)
class Lora:
    """Low-rank updates (LoRA) of these layers of an otherwise frozen language model."""

    rank: Count
    alpha: Amount
    dropout: Share
    layers: Literal["query_value", "linear"]


@dataclass(frozen=True)
class LLMVariant:
    """What a system shows in its prompts beside text, and what it trains.

    `user_vector`, `item_vectors`: the prompt holds the teacher's vector of the user, of each item. `code_size`: width
    of the item vectors if they are not the teacher's own (A-LLMRec, stage 1). `uses_lora`: LoRA with the settings in
    `lora`. `distils`: a teacher_head for the distillation loss."""

    user_vector: bool
    item_vectors: bool
    uses_lora: bool = False
    code_size: int | None = None
    distils: bool = False
    mode: Mode = "retrieval"
    lora: Lora | None = None

    def __post_init__(self) -> None:
        assert self.lora is None or self.uses_lora


LLM_SREC = LLMVariant(user_vector=False, item_vectors=True, distils=True)
VARIANTS = {  # the text of prompts is the same for all; user_head and item_head are trained for retrieval only
    "tallrec": LLMVariant(user_vector=False, item_vectors=False, uses_lora=True),
    "llara": LLMVariant(user_vector=False, item_vectors=True, uses_lora=True),
    "collm": LLMVariant(user_vector=True, item_vectors=True, uses_lora=True),
    "allmrec": LLMVariant(user_vector=True, item_vectors=True, code_size=128),
    "llmsrec": LLM_SREC,
}
