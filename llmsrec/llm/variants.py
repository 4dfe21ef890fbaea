"""How the systems that read with a language model differ (SPEC 3): what stands in slots, and what is trained.

One machinery serves them all; LLM-SRec is a row of this table.
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
    """Low-rank updates of these layers of a language model that is frozen otherwise."""

    rank: Count
    alpha: Amount
    dropout: Share
    layers: Literal["query_value", "linear"]


@dataclass(frozen=True)
class LLMVariant:
    """What a system that reads with a language model shows in its prompts, and what of it is trained.

    `uses_lora`: low-rank updates are trained, with the settings in `lora`. `code_size`: the width of the item vectors
    in the prompt where they are not the teacher's own (A-LLMRec, stage 1)."""

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
VARIANTS = {  # all of them read text; the heads that read states are trained in mode R alone
    "tallrec": LLMVariant(user_vector=False, item_vectors=False, uses_lora=True),
    "llara": LLMVariant(user_vector=False, item_vectors=True, uses_lora=True),
    "collm": LLMVariant(user_vector=True, item_vectors=True, uses_lora=True),
    "allmrec": LLMVariant(user_vector=True, item_vectors=True, code_size=128),
    "llmsrec": LLM_SREC,
}
