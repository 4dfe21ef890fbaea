"""The optimizer, learning rate and validation steps of a fine-tuning (specification 3, trainer)."""

import math

import torch

from llmsrec.finetuning.config import FineTuningConfig
from llmsrec.llm.heads import Heads

WARMUP_SHARE = 0.05  # of the steps, with lr_schedule: cosine


def validation_steps(steps_per_epoch: int, validations: int) -> list[int]:
    """The steps of an epoch, from 1, after which to validate; the last is always one (specification 6.8)."""
    every = max(1, steps_per_epoch // max(1, validations))
    return sorted({*range(every, steps_per_epoch + 1, every), steps_per_epoch})


def eval_steps(config: FineTuningConfig, steps_per_epoch: int) -> list[int]:
    """The steps of the whole training, from 1, after which to validate."""
    in_epoch = validation_steps(steps_per_epoch, config.validations_per_epoch)
    return [epoch * steps_per_epoch + step for epoch in range(config.epochs) for step in in_epoch]


def build_optimizer(heads: Heads, config: FineTuningConfig) -> torch.optim.Optimizer:
    """Adam; projectors and soft tokens learn `projector_lr_multiplier` times as fast as the rest."""
    groups = [
        {"params": heads.output_parameters(), "lr_multiplier": 1.0},
        {
            "params": heads.input_parameters(),
            "lr_multiplier": config.projector_lr_multiplier,
        },
    ]
    return torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def lr_factor(config: FineTuningConfig, step: int, steps_per_epoch: int) -> int | float:
    """What `learning_rate` is multiplied by at step number `step`, from 0."""
    if config.lr_schedule == "decay":  # after every validation, as in the released code
        epoch, step_in_epoch = divmod(step, steps_per_epoch)
        due = validation_steps(steps_per_epoch, config.validations_per_epoch)
        past = sum(step_in_epoch >= validation for validation in due)
        return config.lr_decay ** (epoch * len(due) + past)
    return cosine(step, config.epochs * steps_per_epoch)


def cosine(step: int, total: int) -> float:
    """Linear warm-up to 1, then cosine decay to 0."""
    warmup = max(1, round(WARMUP_SHARE * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
