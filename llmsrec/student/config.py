"""The settings of LLM-SRec: the section `student` of params.yaml."""

from dataclasses import dataclass
from typing import Literal

from llmsrec.core.config import Amount
from llmsrec.finetuning.config import FineTuningConfig


@dataclass(frozen=True)
class StudentConfig(FineTuningConfig):
    """Adds the objective of specification 4.9 to what all systems with a language model share.

    L = L_retrieval + `distillation_weight` * L_distillation + `uniformity_weight` * L_uniformity."""

    distillation_weight: Amount
    uniformity_weight: Amount
    distillation_reduction: Literal["mean", "sum"]
    normalize: bool
    distill: Literal["mse", "contrastive"]
