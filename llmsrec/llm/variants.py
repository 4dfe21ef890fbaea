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
class Recipe:
    """`adapted`: the language model gets low-rank updates, `lora` says which. `codes`: the size of the vectors behind
    item slots where they are not the teacher's own (A-LLMRec, stage 1)."""

    user_slot: bool
    item_slots: bool
    adapted: bool = False
    codes: int | None = None
    distils: bool = False
    mode: Mode = "retrieval"
    lora: Lora | None = None

    def __post_init__(self) -> None:
        assert self.lora is None or self.adapted


LLM_SREC = Recipe(user_slot=False, item_slots=True, distils=True)
RECIPES = {  # all of them read text; the heads that read states are trained in mode R alone
    "tallrec": Recipe(user_slot=False, item_slots=False, adapted=True),
    "llara": Recipe(user_slot=False, item_slots=True, adapted=True),
    "collm": Recipe(user_slot=True, item_slots=True, adapted=True),
    "allmrec": Recipe(user_slot=True, item_slots=True, codes=128),
    "llmsrec": LLM_SREC,
}
