"""How fast the student learns at each step (SPEC 3, trainer)."""

import math

import torch

from llmsrec.llm.heads import Heads
from llmsrec.student.config import StudentConfig

WARMUP_SHARE = 0.05  # the share of the steps that lead up to the full rate


def validation_steps(steps_per_epoch: int, looks: int) -> list[int]:
    """After which steps of an epoch (1-based) to look; always at its end, never zero steps apart (SPEC 6.8)."""
    every = max(1, steps_per_epoch // max(1, looks))
    return sorted({*range(every, steps_per_epoch + 1, every), steps_per_epoch})


def eval_steps(config: StudentConfig, steps_per_epoch: int) -> list[int]:
    """After which steps of the whole training to look."""
    within = validation_steps(steps_per_epoch, config.validations_per_epoch)
    return [epoch * steps_per_epoch + step for epoch in range(config.epochs) for step in within]


def build_optimizer(heads: Heads, config: StudentConfig) -> torch.optim.Optimizer:
    """What fills slots may learn faster than the rest."""
    groups = [
        {"params": heads.output_parameters(), "share": 1.0},
        {"params": heads.input_parameters(), "share": config.projector_lr_multiplier},
    ]
    return torch.optim.Adam(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def lr_factor(config: StudentConfig, step: int, steps_per_epoch: int) -> int | float:
    """The share of `learning_rate` that step number `step`, from 0, takes."""
    if config.lr_schedule == "decay":  # lower after every validation: the released code
        epoch, place = divmod(step, steps_per_epoch)
        due = validation_steps(steps_per_epoch, config.validations_per_epoch)
        return config.lr_decay ** (epoch * len(due) + sum(place >= look for look in due))
    return cosine(step, config.epochs * steps_per_epoch)


def cosine(step: int, total: int) -> float:
    """Up to 1 in the first twentieth of the steps, then down to 0."""
    warm = max(1, round(WARMUP_SHARE * total))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
