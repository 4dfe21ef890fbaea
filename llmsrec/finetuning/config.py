"""The settings that all systems with a language model share."""

from dataclasses import dataclass
from typing import Literal

from llmsrec.core.config import Amount, Count, Natural, Share
from llmsrec.llm.backbone import Backbone
from llmsrec.llm.heads import PromptModelConfig
from llmsrec.llm.prompts import PromptKind
from llmsrec.sequential.sasrec import SASRec


@dataclass(frozen=True)
class FineTuningConfig:
    """Prompts, heads, negatives, learning rate and validation; params.yaml explains each field."""

    prompt: PromptKind
    window: Count
    title_tokens: Count
    max_prompt_tokens: Count
    shared_size: Count
    head_size: Count
    examples: Literal["last_item", "auto_regressive"]
    stride: Count
    train_negatives: Natural
    in_batch: bool
    catalogue_negatives: Natural
    user_vector_in_prompt: bool
    epochs: Count
    batch_size: Count
    learning_rate: Amount
    lr_schedule: Literal["decay", "cosine"]
    lr_decay: Amount
    projector_lr_multiplier: Amount
    item_vector_dropout: Share
    validations_per_epoch: Count
    validation_users: Count | None
    select_by: Literal["hr@10", "ndcg@10"]
    patience: Count
    center_heads_at_init: bool
    prefix_cache_gb: Amount
    seed: int

    def __post_init__(self) -> None:
        if self.stride > self.window:
            raise ValueError(
                f"stride {self.stride} exceeds window {self.window}: some purchases would be in no prompt"
            )
        if self.catalogue_negatives and not self.in_batch:
            raise ValueError("catalogue_negatives are shared by the batch: set in_batch: true")
        if not self.train_negatives and not self.in_batch:
            raise ValueError("there are no negatives: set train_negatives or in_batch")

    def model_config(self, backbone: Backbone, teacher: SASRec) -> PromptModelConfig:
        """The shape of the model that these settings train around `backbone` and `teacher`."""
        return PromptModelConfig(
            embedding_size=teacher.embedding_size,
            hidden_size=backbone.hidden_size,
            shared_size=self.shared_size,
            head_size=self.head_size,
            window=self.window,
            title_tokens=self.title_tokens,
            max_prompt_tokens=self.max_prompt_tokens,
            user_vector_in_prompt=self.user_vector_in_prompt,
            backbone=backbone.digest,
            teacher=teacher.digest,
            item_vector_dropout=self.item_vector_dropout,
            prompt=self.prompt,
        )
