"""The settings of RECFORMER (specification 4.4)."""

from dataclasses import dataclass

from llmsrec.core.config import Amount, Count, Natural, Share
from llmsrec.systems.recformer.texts import Limits


@dataclass(frozen=True)
class RecformerConfig:
    """`encoder` is `small`, a local folder or a hub name; the fields from `num_layers` to `dropout` shape `small`."""

    encoder: str
    revision: str | None
    num_layers: Count
    hidden_size: Count
    num_heads: Count
    dropout: Share
    window: Count
    attribute_tokens: Count
    max_items: Count
    max_tokens: Count
    temperature: Amount
    pretrain_epochs: Natural
    pretrain_batch_size: Count
    pretrain_learning_rate: Amount
    mlm_weight: Amount
    mlm_share: Share
    learning_rate: Amount
    batch_size: Count
    accumulation: Count
    warmup_steps: Natural
    epochs: Count
    second_epochs: Natural
    validate_every: Count
    validation_users: Count | None
    patience: Count
    second_patience: Count

    def __post_init__(self) -> None:
        if self.window % 2:
            raise ValueError(
                f"window is {self.window}: it has as many tokens on either side and must be even"
            )
        if self.hidden_size % self.num_heads:
            raise ValueError("hidden_size must be a multiple of num_heads")
        if not self.temperature:
            raise ValueError("temperature divides: it must be more than 0")
        _ = self.limits

    @property
    def limits(self) -> Limits:
        return Limits(self.attribute_tokens, self.max_items, self.max_tokens)
